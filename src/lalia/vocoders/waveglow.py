"""WaveGlow: mel frames to samples by an invertible network (arXiv:1811.00002)."""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.nn.blocks import run_blocks
from lalia.nn.conv import weight_norm
from lalia.nn.fir import Field, FirState, init_fir
from lalia.streaming import State
from lalia.streams import Continuous, Streams, StreamSpec
from lalia.vocoders.base import Vocoder, check_features, check_speaker, find_spec, find_stream, hop_of

__all__ = ["WaveGlow", "WaveGlowState"]


class _Coupling(nn.Module):
    """A WaveNet without causality that gives the shift and the log-scale of the other half (§2.1)."""

    def __init__(self, half: int, condition: int, dim: int, num_layers: int, kernel_size: int) -> None:
        super().__init__()
        self.dim = dim
        self.start = weight_norm(nn.Conv1d(half, dim, 1))
        self.condition = weight_norm(nn.Conv1d(condition, 2 * dim * num_layers, 1))
        self.dilated, self.out = nn.ModuleList(), nn.ModuleList()
        for i in range(num_layers):
            reach = 2**i * (kernel_size - 1) // 2
            self.dilated.append(weight_norm(nn.Conv1d(dim, 2 * dim, kernel_size, dilation=2**i, padding=reach)))
            last = i == num_layers - 1
            self.out.append(weight_norm(nn.Conv1d(dim, dim if last else 2 * dim, 1)))
        self.end = nn.Conv1d(dim, 2 * half, 1)
        # The first step leaves the samples as they are, which keeps the start of training stable (§2.1).
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        x, total = self.start(x), torch.zeros((), device=x.device)
        conditions = self.condition(condition).chunk(len(self.dilated), dim=1)
        for dilated, out, extra in zip(self.dilated, self.out, conditions, strict=True):
            left, right = (dilated(x) + extra).chunk(2, dim=1)
            made = out(torch.tanh(left) * torch.sigmoid(right))
            if made.shape[1] > self.dim:
                x = x + made[:, : self.dim]
            total = total + made[:, -self.dim :]
        shift, scale = self.end(total).float().chunk(2, dim=1)
        return shift, scale


@dataclass
class WaveGlowState(State):
    """``fir``: the frames still needed; ``position`` [B]: frames that came before, which number the noise."""

    fir: FirState
    position: Tensor


class WaveGlow(Vocoder):
    """WaveGlow (arXiv:1811.00002): trained by likelihood, inverted to synthesise.

    Its noise is numbered by frame, so that streaming makes the same samples as the whole at once.

    :param stream: log-mel features.
    :param sample_rate: of the audio made, in Hz.
    :param window: samples over which a mel frame is spread, as the mel's own window.
    :param num_flows: steps; after every ``early_every`` of them ``early_size`` channels are finished (§2.3).
    :param group: samples that make one vector (§2).
    :param dim: channels inside a coupling network of ``num_layers`` dilated layers.
    :param sigma: deviation of the noise in synthesis; ``train_sigma`` of the prior in training.
    """

    terms = ("nll",)

    @dataclass(frozen=True)
    class Config(Vocoder.Config):
        stream: str = "mel"
        _: KW_ONLY
        sample_rate: int = 22050
        window: int = 1024
        num_flows: int = 12
        group: int = 8
        early_every: int = 4
        early_size: int = 2
        num_layers: int = 8
        dim: int = 256
        kernel_size: int = 3
        sigma: float = 0.6
        train_sigma: float = 0.5**0.5
        seed: int = 0

        def tiny(self) -> "WaveGlow.Config":
            return replace(self, num_flows=4, early_every=2, num_layers=2, dim=16)

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.config = config
        spec = find_spec(specs, config.stream, "WaveGlow")
        if not isinstance(spec.kind, Continuous):
            raise ConfigError(f"WaveGlow reads mel features, and {config.stream!r} holds codes. Put a stage before it.")
        self.bins = spec.kind.dim
        self.stream = config.stream
        self.reads = config.reads
        self.sample_rate = config.sample_rate
        self.hop = hop_of(config.sample_rate, spec.frame_rate, "WaveGlow")
        rounds = math.ceil(config.num_flows / config.early_every) - 1
        if self.hop % config.group or config.window < self.hop or config.group <= rounds * config.early_size:
            raise ConfigError(
                f"WaveGlow cannot make frames of {self.hop} samples from groups of {config.group} and a window of "
                f"{config.window}. Give a group that divides the frame and a window not under it."
            )
        self.spread = nn.ConvTranspose1d(self.bins, self.bins, config.window, self.hop)
        self.mixes, self.couplings = nn.ParameterList(), nn.ModuleList()
        self.widths: list[int] = []
        width = config.group
        for flow in range(config.num_flows):
            if flow and flow % config.early_every == 0:
                width -= config.early_size
            self.widths.append(width)
            mix = torch.linalg.qr(torch.randn(width, width))[0]
            # A rotation: its determinant must start at one, not at minus one.
            mix[:, 0] *= torch.linalg.det(mix).sign()
            self.mixes.append(nn.Parameter(mix.contiguous()))
            self.couplings.append(
                _Coupling(width // 2, self.bins * config.group, config.dim, config.num_layers, config.kernel_size)
            )
        self.field = self._field()

    def _field(self) -> Field:
        c = self.config
        groups = c.num_flows * sum(2**i * (c.kernel_size - 1) // 2 for i in range(c.num_layers))
        reach = math.ceil(groups * c.group / self.hop)
        # A frame is spread over what follows it, so more of the past is seen.
        return Field(reach + math.ceil(c.window / self.hop) - 1, reach, self.hop)

    def _condition(self, mel: Tensor) -> Tensor:
        """Mel frames [B, T, bins] to [B, bins * group, T * hop / group]."""
        x = self.spread(mel.transpose(1, 2))[..., : mel.shape[1] * self.hop]
        x = x.unflatten(-1, (-1, self.config.group))
        return x.permute(0, 1, 3, 2).flatten(1, 2)

    def forward(self, samples: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Samples [B, T * hop] with their mel frames [B, T, bins] to noise and the log-determinant.

        :returns: [B, T * hop], and [B].
        """
        condition = self._condition(mel)
        x = samples.float().unflatten(-1, (-1, self.config.group)).transpose(1, 2)
        finished: list[Tensor] = []
        volume = torch.zeros(len(samples), device=samples.device)
        for mix, coupling, width in zip(self.mixes, self.couplings, self.widths, strict=True):
            finished.append(x[:, : x.shape[1] - width])
            x = x[:, x.shape[1] - width :]
            with torch.autocast(x.device.type, enabled=False):
                x = torch.einsum("ij,bjt->bit", mix.float(), x)
                volume = volume + x.shape[-1] * torch.linalg.slogdet(mix.float())[1]
            keep, change = x.split([width // 2, width - width // 2], dim=1)
            shift, scale = coupling(keep, condition)
            x = torch.cat([keep, torch.exp(scale) * change + shift], dim=1)
            volume = volume + scale.sum((1, 2))
        noise = torch.cat([*finished, x], dim=1)
        return noise.transpose(1, 2).flatten(1), volume

    def inverse(self, noise: Tensor, mel: Tensor) -> Tensor:
        """Noise [B, T * hop] and mel frames [B, T, bins] to samples [B, T * hop]; undoes ``forward``."""
        condition = self._condition(mel)
        parts = noise.float().unflatten(-1, (-1, self.config.group)).transpose(1, 2)
        x = parts[:, self.config.group - self.widths[-1] :]
        for flow in reversed(range(self.config.num_flows)):
            width = self.widths[flow]
            keep, change = x.split([width // 2, width - width // 2], dim=1)
            shift, scale = self.couplings[flow](keep, condition)
            x = torch.cat([keep, (change - shift) * torch.exp(-scale)], dim=1)
            with torch.autocast(x.device.type, enabled=False):
                x = torch.einsum("ij,bjt->bit", torch.linalg.inv(self.mixes[flow].float()), x)
            before = self.config.group if flow == 0 else self.widths[flow - 1]
            start = self.config.group - before
            x = torch.cat([parts[:, start : start + before - width], x], dim=1)
        return x.transpose(1, 2).flatten(1)

    # -- training ---------------------------------------------------------------------------------

    def counts(self, streams: Streams, audio: Audio) -> dict[str, float]:
        """What to divide the loss by: samples."""
        return {"nll": float(len(audio) * (audio.samples.shape[-1] // self.hop) * self.hop)}

    def losses(self, streams: Streams, audio: Audio, speaker: Tensor | None = None) -> dict[str, Tensor]:
        """The negative log-likelihood (its constant left out), summed over samples.

        :param streams: mel frames, all valid.
        :param audio: the samples of these frames, one channel; what makes no whole frame is left out.
        """
        mel = find_stream(streams, self.stream)
        frames = audio.samples.shape[-1] // self.hop
        if (audio.samples.shape[1], frames, audio.sample_rate) != (1, mel.num_tokens, self.sample_rate):
            raise DataError(
                f"Segments of {tuple(audio.samples.shape[1:])} samples at {audio.sample_rate} Hz do not match "
                f"{mel.num_tokens} mel frames of {self.hop} samples at {self.sample_rate} Hz. "
                "Cut both at the same frames."
            )
        noise, volume = self(audio.samples[:, 0, : frames * self.hop], mel.values)
        return {"nll": (noise**2).sum() / (2 * self.config.train_sigma**2) - volume.sum()}

    # -- synthesis --------------------------------------------------------------------------------

    def init_state(self, batch_size: int) -> WaveGlowState:
        like = torch.zeros(1, 1, self.bins + self.hop, device=self.spread.weight.device)
        position = torch.zeros(batch_size, dtype=torch.long, device=like.device)
        return WaveGlowState(init_fir(self.field, like, batch_size), position)

    def _noise(self, first: int, frames: int) -> Tensor:
        """The noise of frames ``first`` to ``first + frames``: [frames, hop], the same however it is cut."""
        chance = torch.Generator()
        rows = [
            torch.randn(self.hop, generator=chance.manual_seed((self.config.seed << 32) + t), device="cpu")
            for t in range(first, first + frames)
        ]
        return self.config.sigma * torch.stack(rows) if rows else torch.zeros(0, self.hop)

    @torch.no_grad()
    def decode(
        self,
        streams: Streams,
        state: State | None = None,
        *,
        final: bool = False,
        speaker: int | Tensor | None = None,
    ) -> Audio:
        assert state is None or isinstance(state, WaveGlowState)
        mel = find_stream(streams, self.stream)
        check_features(mel, self.stream, self.bins)
        check_speaker(speaker, len(mel), self.num_speakers)
        first = [0] * len(mel) if state is None else state.position.tolist()
        known = {start: self._noise(start, mel.num_tokens).to(mel.values) for start in set(first)}
        noise = torch.stack([known[start] for start in first])
        samples, lengths = run_blocks(
            lambda frames, _: self.inverse(frames[..., self.bins :].flatten(1), frames[..., : self.bins]),
            self.field,
            torch.cat([mel.values, noise], dim=-1),
            mel.lengths,
            state.fir if state else None,
            final=final,
        )
        if state is not None:
            state.position = torch.zeros_like(state.position) if final else state.position + mel.lengths
        return Audio(samples[:, None], self.sample_rate, lengths)
