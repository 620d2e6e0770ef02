"""UnitFastSpeech: phones to units and pitch, all frames at once and yet as they come."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.errors import ConfigError, LayoutError
from lalia.nn.blocks import run_blocks
from lalia.nn.fir import Field, FirState, init_fir
from lalia.streaming import State
from lalia.streams import Continuous, Discrete, Streams, StreamSpec, TokenSequence, valid_steps
from lalia.vocoders.ahead import AheadBlocks
from lalia.vocoders.base import Stage, check_codes, check_speaker, find_spec, find_stream, speakers

__all__ = ["UnitFastSpeech", "UnitFastSpeechState"]

_LONGEST = 100
"""Frames of a phone, whatever is predicted: two seconds at 50 Hz."""


@dataclass
class UnitFastSpeechState(State):
    """What waits for its future: phones, and frames; ``left`` [B], the part of a frame that rounding has left over."""

    phones: FirState
    frames: FirState
    left: Tensor


class UnitFastSpeech(Stage):
    """FastSpeech 2 (Ren et al., arXiv:2006.04558) with units in place of mel frames.

    Phones are encoded, each is said to last so many frames and is repeated for these, and a decoder at the frame rate
    predicts the unit and the pitch of every frame. Nothing is autoregressive. Both halves are convolutions that see
    little ahead, so that pieces give what the whole gives.

    :param stream: the stream of phones, with durations where they are known.
    :param makes: the stream of units, at the frame rate.
    :param pitch: a stream of features at the frame rate: the pitch, and whether there is one.
    :param num_speakers: voices; 0 for one.
    :param phone_lookahead: phones that each block of the encoder sees ahead, one number for each block.
    :param frame_lookahead: the same for the decoder, in frames.
    """

    terms = ("units", "pitch", "voicing", "durations")
    learns_from: tuple[str, ...] = ()

    @dataclass(frozen=True)
    class Config(Stage.Config):
        makes: str = "units"
        _: KW_ONLY
        pitch: str = "pitch"
        num_speakers: int = 0
        dim: int = 224
        ffn_dim: int = 640
        phone_lookahead: tuple[int, ...] = (3, 2, 1, 1, 1)
        frame_lookahead: tuple[int, ...] = (2, 1, 1, 1, 1, 1)
        kernel_size: int = 9
        dropout: float = 0.1

        @property
        def made(self) -> tuple[str, ...]:
            return (self.makes, self.pitch)

        def tiny(self) -> "UnitFastSpeech.Config":
            return replace(
                self,
                num_speakers=min(self.num_speakers, 4),
                dim=32,
                ffn_dim=64,
                phone_lookahead=self.phone_lookahead[:2],
                frame_lookahead=self.frame_lookahead[:2],
            )

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.config, name = config, "UnitFastSpeech"
        phones, units, pitch = (find_spec(specs, s, name) for s in (config.stream, config.makes, config.pitch))
        if not isinstance(phones.kind, Discrete) or not isinstance(units.kind, Discrete) or units.frame_rate is None:
            raise ConfigError(f"{name} turns {config.stream!r} into {config.makes!r}. Give codes, and these a clock.")
        if pitch.kind != Continuous(2) or pitch.frame_rate != units.frame_rate:
            raise ConfigError(
                f"{name} predicts {config.pitch!r}, which is {pitch.kind} at {pitch.frame_rate} Hz. Give two features "
                f"at {units.frame_rate:g} Hz: a Pitch with voicing."
            )
        self.stream, self.reads = config.stream, (config.stream,)
        self.makes = {config.makes: units, config.pitch: pitch}
        self.learns_from = (config.stream, *self.makes)
        self.num_phones, self.num_units = phones.kind.codebook_size, units.kind.codebook_size
        self.num_speakers = max(config.num_speakers, 1)
        dim = config.dim
        self.embedding = nn.Embedding(self.num_phones, dim)
        self.voices = nn.Embedding(config.num_speakers, dim) if config.num_speakers else None
        shape = {"ffn_dim": config.ffn_dim, "kernel_size": config.kernel_size}
        self.encoder = AheadBlocks(dim, lookahead=config.phone_lookahead, **shape)
        self.duration = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, 1))
        self.place = nn.Linear(3, dim)
        self.decoder = AheadBlocks(dim, lookahead=config.frame_lookahead, **shape)
        self.units = nn.Linear(dim, self.num_units)
        self.pitch = nn.Linear(dim, 2)
        self._phone_field = Field(self.encoder.past, self.encoder.future, 1)
        self.ahead = self.encoder.future
        self._frame_field = Field(self.decoder.past, self.decoder.future, 1)

    # -- the network ------------------------------------------------------------------------------

    def encode(self, phones: Tensor, voice: Tensor, there: Tensor | None = None) -> Tensor:
        """Phones [B, T] in voices [B] to hidden states [B, T, D]."""
        x = self.embedding(phones)
        if self.voices is not None:
            x = x + self.voices(voice)[:, None]
        return self.encoder(F.dropout(x, self.config.dropout, self.training), there)

    def log_durations(self, hidden: Tensor) -> Tensor:
        """log(1 + frames) of each phone [B, T]."""
        return self.duration(hidden).squeeze(-1)

    def spread(self, hidden: Tensor, durations: Tensor) -> Tensor:
        """Hidden states of one row [T, D], each for its frames, and told how far into the phone it is [F, D]."""
        at = torch.repeat_interleave(torch.arange(len(durations), device=hidden.device), durations)
        first = torch.cumsum(durations, 0) - durations
        into = (torch.arange(len(at), device=hidden.device) - first[at]).to(hidden.dtype)
        lasts = durations[at].to(hidden.dtype)
        place = torch.stack([into / 8, (lasts - 1 - into) / 8, (into + 0.5) / lasts], dim=-1)
        return hidden[at] + self.place(place)

    def decode(self, frames: Tensor, there: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Frames [B, F, D] to logits of the units [B, F, V], and pitch with the logit of voicing [B, F, 2]."""
        hidden = self.decoder(F.dropout(frames, self.config.dropout, self.training), there)
        return self.units(hidden), self.pitch(hidden)

    # -- training ---------------------------------------------------------------------------------

    def counts(self, streams: Streams, audio: Audio | None = None) -> dict[str, float]:
        """What to divide each loss by: frames, and phones."""
        phones = find_stream(streams, self.stream)
        assert phones.durations is not None
        frames = float(phones.durations.sum())
        return {"units": frames, "pitch": frames, "voicing": frames, "durations": float(phones.lengths.sum())}

    def losses(self, streams: Streams, audio: Audio | None = None, speaker: Tensor | None = None) -> dict[str, Tensor]:
        """Sums of cross-entropy of the units and of voicing, and squared errors of pitch and of log(1 + frames).

        :raises LayoutError: phones without durations.
        """
        phones = find_stream(streams, self.stream)
        if phones.durations is None:
            raise LayoutError(f"Stream {self.stream!r} came without durations. Give phones with their times.")
        device = phones.values.device
        known = valid_steps(phones.lengths, phones.num_tokens)
        hidden = self.encode(phones.values[:, 0], speakers(speaker, len(phones), device), known)
        error = (self.log_durations(hidden).float() - torch.log1p(phones.durations.float())) ** 2
        rows = [self.spread(hidden[b, :n], phones.durations[b, :n]) for b, n in enumerate(phones.lengths.tolist())]
        frames = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(r) for r in rows], device=device)
        units, pitch = find_stream(streams, self.config.makes).expand(), find_stream(streams, self.config.pitch)
        # The last frame of one analysis may be missing in another.
        room = min(frames.shape[1], units.num_tokens, pitch.num_tokens)
        ends = torch.minimum(torch.minimum(lengths, units.lengths), pitch.lengths).clamp(max=room)
        there = valid_steps(lengths, frames.shape[1])
        logits, contour = (x[:, :room].float() for x in self.decode(frames, there))
        valid = valid_steps(ends, room)
        target = pitch.values[:, :room].float()
        return {
            "units": F.cross_entropy(logits[valid], units.values[:, 0, :room][valid], reduction="sum"),
            "pitch": ((contour[..., 0] - target[..., 0]) ** 2)[valid].sum(),
            "voicing": F.binary_cross_entropy_with_logits(
                contour[..., 1][valid], target[..., 1][valid], reduction="sum"
            ),
            "durations": error[known].sum(),
        }

    # -- synthesis --------------------------------------------------------------------------------

    def init_state(self, batch_size: int) -> UnitFastSpeechState:
        like = self.embedding.weight
        phones = init_fir(self._phone_field, torch.zeros(1, 1, dtype=torch.long, device=like.device), batch_size)
        frames = init_fir(self._frame_field, like.new_zeros(1, 1, self.config.dim), batch_size)
        return UnitFastSpeechState(phones, frames, torch.zeros(batch_size))

    @torch.no_grad()
    def convert(
        self,
        streams: Streams,
        state: State | None = None,
        *,
        final: bool = False,
        speaker: int | Tensor | None = None,
    ) -> Streams:
        """The likeliest units [B, 1, T], one for each frame, and the pitch [B, T, 2]."""
        assert state is None or isinstance(state, UnitFastSpeechState)
        phones = find_stream(streams, self.stream)
        check_codes(phones, self.stream, 1, self.num_phones)
        check_speaker(speaker, len(phones), self.num_speakers)
        voice = speakers(speaker, len(phones), phones.values.device)
        if state is None:
            state, final = self.init_state(len(phones)), True
        hidden, lengths = run_blocks(
            lambda x, rows: self.encode(x, voice[rows]),
            self._phone_field,
            phones.values[:, 0],
            phones.lengths,
            state.phones,
            final=final,
        )
        rows = []
        for b, n in enumerate(lengths.tolist()):
            row = hidden[b, :n] if hidden.ndim == 3 else self.embedding.weight.new_zeros(0, self.config.dim)
            rows.append(self.spread(row, self._frames(row, state, b)))
            if final:
                state.left[b] = 0.0
        spread = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        counts = torch.tensor([len(r) for r in rows], device=spread.device)
        made, lengths = run_blocks(
            lambda x, _: torch.cat([(y := self.decode(x))[0].argmax(-1, keepdim=True).to(x.dtype), y[1]], dim=-1),
            self._frame_field,
            spread,
            counts,
            state.frames,
            final=final,
        )
        made = made if made.shape[-1] == 3 else made.new_zeros(len(phones), 0, 3)
        units, pitch = made[..., :1].round().long().transpose(1, 2), made[..., 1:].float()
        pitch = torch.stack([pitch[..., 0], (pitch[..., 1] > 0).to(pitch.dtype)], dim=-1)
        ones = torch.ones(units.shape[0], units.shape[2], dtype=torch.long, device=units.device)
        return {
            self.config.makes: TokenSequence(units, lengths, ones),
            self.config.pitch: TokenSequence(pitch, lengths),
        }

    def _frames(self, hidden: Tensor, state: UnitFastSpeechState, b: int) -> Tensor:
        """Whole frames [T] of phones [T, D] of row ``b``: what rounding takes from one, the next ones get."""
        exact = torch.expm1(self.log_durations(hidden).float()).clamp(0, _LONGEST).cpu()
        reached = state.left[b] + torch.cumsum(exact, 0)
        whole = torch.floor(reached + 0.5).long()
        if len(exact):
            state.left[b] = reached[-1] - whole[-1]
        durations = torch.diff(whole, prepend=torch.zeros(1, dtype=torch.long))
        return durations.clamp(min=0).to(hidden.device)
