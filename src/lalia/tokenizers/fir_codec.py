"""Codecs whose networks have a finite reach: they stream exactly, late by what they see of the future."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.nn.blocks import run_blocks
from lalia.nn.fir import Field, FirState, init_fir
from lalia.streaming import State
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.tokenizers.base import heard

__all__ = ["FirCodecState", "FirEncoder", "block_of"]

_BLOCK_SECONDS = 20.0


def block_of(frame_rate: float) -> int:
    """Most frames that are computed at once."""
    return max(round(_BLOCK_SECONDS * frame_rate), 1)


@dataclass
class FirCodecState(State):
    """``frames``: of the encoder; ``held`` [B, hop]: samples of a frame that is not whole, ``count`` [B] of them."""

    frames: FirState
    held: Tensor
    count: Tensor


class FirEncoder:
    """The half of such a codec that listens.

    :param field: what the encoder sees, in frames of ``hop`` samples; it gives one frame of codes for each.
    """

    spec: StreamSpec
    sample_rate: int
    hop: int
    field: Field

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @abstractmethod
    def quantize(self, samples: Tensor) -> Tensor:
        """Samples [R, 1, T * hop] to codes [R, K, T]."""

    def init_state(self, batch_size: int) -> FirCodecState:
        """An empty stream for each row."""
        like = torch.zeros(1, 1, self.hop, device=self.device)
        held = torch.zeros(batch_size, self.hop, device=self.device)
        return FirCodecState(init_fir(self.field, like, batch_size), held, torch.zeros(batch_size, dtype=torch.long))

    @torch.no_grad()
    def encode(self, audio: Audio, state: FirCodecState | None = None, *, final: bool = False) -> TokenSequence:
        """See ``Codec.encode``; frames come when what they see of the future is there."""
        audio = heard(audio, self.sample_rate, streaming=state is not None)
        rows = []
        for b, n in enumerate(audio.lengths.tolist()):
            sound = audio.samples[b, 0, :n].to(self.device)
            if state is not None:
                sound = torch.cat([state.held[b, : int(state.count[b])], sound])
            if final or state is None:
                sound = F.pad(sound, (0, -len(sound) % self.hop))
            whole = len(sound) // self.hop * self.hop
            if state is not None:
                left = sound[whole:]
                state.held[b, : len(left)] = left
                state.count[b] = len(left)
            rows.append(sound[:whole].view(-1, self.hop))
        codes, lengths = run_blocks(
            lambda x, _: self.quantize(x.flatten(1)[:, None]).transpose(1, 2),
            self.field,
            nn.utils.rnn.pad_sequence(rows, batch_first=True),
            torch.tensor([len(row) for row in rows], device=self.device),
            None if state is None else state.frames,
            final=final,
            block=block_of(self.sample_rate / self.hop),
        )
        if codes.ndim == 2:  # nothing is certain yet
            assert isinstance(self.spec.kind, Discrete)
            codes = torch.zeros(len(audio), 0, self.spec.kind.num_codebooks)
        return TokenSequence(codes.transpose(1, 2).long().cpu(), lengths.cpu())
