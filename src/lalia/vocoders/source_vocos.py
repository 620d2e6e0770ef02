"""SourceVocos: a source at the pitch that is given, through filters that a network of Vocos predicts from units."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor, nn

from lalia.errors import ConfigError
from lalia.nn.source import HIGHEST_HZ, LOWEST_HZ, advance, noise_table, pulses
from lalia.nn.spectral import istft, stft
from lalia.streaming import State
from lalia.streams import Continuous, StreamSpec
from lalia.vocoders.units import UnitVocoder
from lalia.vocoders.vocos import LOUDEST, VocosNetwork, VocosShape

__all__ = ["SourceState", "SourceVocos"]

_NOISE_FRAMES = 2000
_QUIET = -3.0
"""Of the filters at first, as a natural logarithm: speech has some 5 % of the full range."""


@dataclass
class SourceState(State):
    """Of each row [B]: the pitch in Hz and the voicing at the end of the last frame (-1: there was none), the periods
    so far, and the number of frames.
    """

    pitch: Tensor
    voicing: Tensor
    periods: Tensor
    count: Tensor


class SourceVocos(VocosNetwork, UnitVocoder):
    """Units and their pitch to samples: a network of Vocos (arXiv:2306.00814) predicts filters, not the waveform.

    The spectrum of pulses at the pitch is multiplied by a complex filter, that of noise by one of magnitudes alone, and
    the sum goes through the inverse STFT, as in iSTFTNet with a neural source (HiFT-Net, arXiv:2309.09493). Harmonics
    and their phases are right from the beginning, which are what a vocoder otherwise learns last.

    :param pitch: the condition that holds the natural logarithm of F0 in Hz (not relative to a speaker), and voicing.
    """

    @dataclass(frozen=True)
    class Config(VocosShape, UnitVocoder.Config):
        _: KW_ONLY
        pitch: str = "pitch"

        def tiny(self) -> "SourceVocos.Config":
            return replace(self, num_speakers=min(self.num_speakers, 4), dim=48, ffn_dim=96, num_layers=2)

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        super().__init__(config, specs, dim=config.dim, duration_dim=config.dim)
        self.config = config
        kind = self.conditions.specs[config.pitch].kind if config.pitch in self.conditions.specs else None
        if kind != Continuous(2):
            raise ConfigError(
                f"SourceVocos has its pitch from {config.pitch!r}, which is {kind or 'not among its conditions'}. "
                "Give it two features: a Pitch with voicing that is not normalized."
            )
        self.field = self.make_network(config, config.sample_rate, self.spec.frame_rate)
        bins = config.overlap * self.step // 2 + 1
        self.head = nn.Linear(config.dim, 3 * bins)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        with torch.no_grad():
            self.head.bias.copy_(
                torch.cat([torch.full((bins,), _QUIET), torch.zeros(bins), torch.full((bins,), _QUIET)])
            )
        self.register_buffer("noise", noise_table(_NOISE_FRAMES, self.hop), persistent=False)

    noise: Tensor

    # -- the source -------------------------------------------------------------------------------

    tracked = 4

    def init_source(self, batch_size: int) -> SourceState:
        """Before the first frame."""
        none = torch.full((batch_size,), -1.0, dtype=torch.float64)
        return SourceState(none, none.clone(), torch.zeros_like(none), torch.zeros_like(none))

    def track(self, beside: Mapping[str, Tensor], lengths: Tensor, state: State | None) -> Tensor:
        """What the source of each frame hangs on beside its own pitch [B, T, 4]: pitch and voicing before it, the
        periods that went before, and its number.

        :param beside: the conditions, a step for each frame.
        :param state: updated in place.
        """
        hz, voicing = self._pitch(beside)
        state = self.init_source(len(hz)) if state is None else state
        assert isinstance(state, SourceState)
        first, told = (x.to(hz.device)[:, None] for x in (state.pitch, state.voicing))
        if hz.shape[1]:
            first, told = torch.where(first < 0, hz[:, :1], first), torch.where(told < 0, voicing[:, :1], told)
        before = torch.cat([first, hz], dim=1).double()
        voiced = torch.cat([told, voicing], dim=1).double()
        steps = advance(before[:, :-1], before[:, 1:], self.hop, self.sample_rate)
        periods = torch.cat([state.periods.to(hz.device)[:, None], steps], dim=1).cumsum(1)
        number = state.count.to(hz.device)[:, None] + torch.arange(hz.shape[1] + 1, device=hz.device)
        last = lengths.to(hz.device)[:, None]
        heard = last[:, 0] > 0
        state.pitch = torch.where(heard, before.gather(1, last)[:, 0], state.pitch.to(hz.device))
        state.voicing = torch.where(heard, voiced.gather(1, last)[:, 0], state.voicing.to(hz.device))
        state.periods = periods.gather(1, last)[:, 0] % 1.0
        state.count = number.gather(1, last)[:, 0] % _NOISE_FRAMES
        parts = (before[:, :-1], voiced[:, :-1], periods[:, :-1] % 1.0, number[:, :-1] % _NOISE_FRAMES)
        return torch.stack(parts, dim=-1).float()

    def _pitch(self, beside: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """F0 in Hz, and voicing [B, T]."""
        value, voicing = beside[self.config.pitch].float().unbind(-1)
        return torch.exp(value).clamp(LOWEST_HZ, HIGHEST_HZ), voicing

    def _source(self, beside: Mapping[str, Tensor], tracked: Tensor) -> tuple[Tensor, Tensor]:
        """Pulses where there is a pitch, and noise [B, N]."""
        hz, voicing = self._pitch(beside)
        before, voiced, phase, number = tracked.unbind(-1)
        u = (torch.arange(self.hop, device=hz.device) + 0.5) / self.hop
        gate = (voiced[..., None] + (voicing - voiced)[..., None] * u).flatten(1)
        tone = pulses(before, hz, phase, self.hop, self.sample_rate) * gate
        return tone, self.noise[number.round().long() % _NOISE_FRAMES].flatten(1)

    # -- the filters ------------------------------------------------------------------------------

    def forward(
        self,
        codes: Tensor,
        speaker: Tensor | None = None,
        beside: Mapping[str, Tensor] | None = None,
        tracked: Tensor | None = None,
    ) -> Tensor:
        beside = beside or {}
        if tracked is None:
            # Of a recording cut out anywhere: noise that it has not had before.
            state = self.init_source(len(codes))
            state.count = torch.randint(_NOISE_FRAMES, (len(codes),)).double()
            lengths = torch.full((len(codes),), codes.shape[2], device=codes.device)
            tracked = self.track(beside, lengths, state)
        tone, noise = self._source(beside, tracked)
        size, phase, breath = self.head(self.hidden(self.dressed(codes, speaker, beside))).float().chunk(3, dim=-1)
        n_fft = self.window.shape[0]
        tone_spectrum, noise_spectrum = (stft(x, n_fft, self.step, self.window) for x in (tone, noise))
        filtered = torch.polar(torch.exp(size.clamp(max=LOUDEST)), phase).transpose(1, 2) * tone_spectrum
        filtered = filtered + torch.exp(breath.clamp(max=LOUDEST)).transpose(1, 2) * noise_spectrum
        return istft(filtered, self.step, self.window)
