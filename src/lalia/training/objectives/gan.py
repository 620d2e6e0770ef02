"""Adversarial training of a vocoder that maps units to samples (HiFi-GAN, arXiv:2010.05646 §2.4)."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.errors import ConfigError, DataError
from lalia.nn.discriminators import MultiPeriod, MultiResolution, MultiScale
from lalia.nn.spectral import LogMel, spectral_distance
from lalia.streams import TokenSequence
from lalia.vocoders.durations import interior_durations
from lalia.vocoders.mel import MelVocoder
from lalia.vocoders.units import UnitVocoder

__all__ = [
    "VocoderGAN",
    "discriminator_loss",
    "feature_loss",
    "generator_loss",
]

Made = Sequence[Sequence[Tensor]]
"""For each discriminator, the outputs of its layers; the last are scores."""


Discriminator = MultiPeriod.Config | MultiScale.Config | MultiResolution.Config


def _tiny(config: Discriminator) -> Discriminator:
    match config:
        case MultiPeriod.Config():
            return replace(config, periods=config.periods[:2], channels=(4, 8))
        case MultiScale.Config():
            return replace(config, num_scales=1, channels=(4, 8), kernels=(15, 5), strides=(1, 4), groups=(1, 2))
        case MultiResolution.Config():
            return replace(config, sizes=config.sizes[:1], channels=4, num_strided=1)


def _row_means(x: Tensor) -> Tensor:
    return x.float().flatten(1).mean(1)


def discriminator_loss(real: Made, made: Made) -> Tensor:
    """Least squares: sum over discriminators of mean (D(x) - 1)^2 + mean D(G)^2, summed over rows."""
    return torch.stack(
        [_row_means((r[-1] - 1) ** 2).sum() + _row_means(m[-1] ** 2).sum() for r, m in zip(real, made, strict=True)]
    ).sum()


def generator_loss(made: Made) -> Tensor:
    """Least squares: sum over discriminators of mean (D(G) - 1)^2, summed over rows."""
    return torch.stack([_row_means((m[-1] - 1) ** 2).sum() for m in made]).sum()


def feature_loss(real: Made, made: Made) -> Tensor:
    """Mean absolute difference of every hidden layer, summed over layers, discriminators and rows."""
    return torch.stack(
        [
            _row_means((a.detach() - b).abs()).sum()
            for r, m in zip(real, made, strict=True)
            for a, b in zip(r[:-1], m[:-1], strict=True)
        ]
    ).sum()


class VocoderGAN(Configurable):
    """The objective of a vocoder: mel, adversarial and feature losses, and durations where it predicts them.

    A batch is ``{"streams": Streams, "audio": Audio, "speaker": Tensor [B] | None}``: segments of one length,
    one code or spectrum per frame, and the samples that belong to them. Losses are sums over segments (durations: over
    units); ``counts`` has the numbers to divide by.

    :param mel: the spectrum whose L1 distance is minimised; its sample rate must be the vocoder's.
        HiFi-GAN's (80 bands, windows of 1024) at the vocoder's rate when None.
    :param discriminators: the opponents.
    :param judged_frames: frames of each segment that the discriminators look at, at a place that changes with
        the step; all when None. They cost more than the rest, and need less context.
    :param warmup_steps: steps before the discriminators join; until then only spectra are compared.
    :param stft_sizes: window lengths of the multi-resolution STFT distance, used when ``stft_weight`` is not 0.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        _: KW_ONLY
        mel: LogMel.Config | None = None
        discriminators: tuple[Discriminator, ...] = field(
            default_factory=lambda: (MultiPeriod.Config(), MultiScale.Config())
        )
        judged_frames: int | None = None
        warmup_steps: int = 0
        adversarial_weight: float = 1.0
        feature_weight: float = 2.0
        mel_weight: float = 45.0
        stft_weight: float = 0.0
        stft_sizes: tuple[int, ...] = (512, 1024, 2048)
        duration_weight: float = 1.0

        def tiny(self) -> "VocoderGAN.Config":
            return replace(
                self,
                mel=None if self.mel is None else self.mel.tiny(),
                discriminators=tuple(_tiny(d) for d in self.discriminators[:2]),
                judged_frames=min(self.judged_frames or 10, 10),
                warmup_steps=min(self.warmup_steps, 2),
                stft_sizes=self.stft_sizes[:1],
            )

    players = ("discriminator", "generator")

    def __init__(self, config: Config, vocoder: UnitVocoder | MelVocoder) -> None:
        self.config = config
        self.vocoder = vocoder
        mel = config.mel or LogMel.Config(vocoder.sample_rate)
        if mel.sample_rate != vocoder.sample_rate:
            raise ConfigError(
                f"VocoderGAN compares mel spectra at {mel.sample_rate} Hz, but the vocoder makes "
                f"{vocoder.sample_rate} Hz. Give both one sample rate."
            )
        device = next(vocoder.parameters()).device
        self.mel = mel.build().to(device)
        self.discriminators = nn.ModuleList(d.build() for d in config.discriminators).to(device)
        self.step = 0
        """The training step, set by the loop."""
        self.weights: Mapping[str, float] = {
            "discriminator": 1.0,
            "adversarial": config.adversarial_weight,
            "feature": config.feature_weight,
            "mel": config.mel_weight,
            "stft": config.stft_weight,
            "duration": config.duration_weight,
        }
        self._made: tuple[Mapping[str, Any], Tensor] | None = None

    @property
    def warm(self) -> bool:
        """Whether the discriminators play."""
        return bool(self.discriminators) and self.step >= self.config.warmup_steps

    def modules(self, player: str) -> list[nn.Module]:
        """What this player's optimizer updates."""
        return [self.discriminators] if player == "discriminator" else [self.vocoder]

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """What to divide each loss of this batch by, for the present step."""
        names = ["mel"]
        names += ["stft"] if self.config.stft_weight else []
        names += ["discriminator", "adversarial", "feature"] if self.warm else []
        counts = dict.fromkeys(names, float(len(self._units(batch))))
        if self.vocoder.durations is not None:
            counts["duration"] = float(interior_durations(self._units(batch))[1].sum())
        return counts

    def losses(self, player: str, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The sums of this player's losses; nothing for the discriminator before it joins."""
        if player == "discriminator":
            return self._discriminator(batch) if self.warm else {}
        return self._generator(batch)

    def _discriminator(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        # The generator plays next on this batch and with these parameters: keep what it made for it.
        made = self._synthesize(batch)
        self._made = (batch, made)
        real = self._samples(batch)
        real, made = self._crop(batch, real), self._crop(batch, made.detach())
        return {"discriminator": discriminator_loss(self._judge(real), self._judge(made))}

    def _generator(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        made = self._take(batch)
        real = self._samples(batch)
        losses = {"mel": _row_means((self.mel(made) - self.mel(real)).abs()).sum()}
        if self.config.stft_weight:
            losses["stft"] = spectral_distance(made, real, self.config.stft_sizes).sum()
        if self.warm:
            with torch.no_grad():
                judged_real = self._judge(self._crop(batch, real))
            judged = self._judge(self._crop(batch, made))
            losses["adversarial"] = generator_loss(judged)
            losses["feature"] = feature_loss(judged_real, judged)
        if self.vocoder.durations is not None:
            losses["duration"] = self.vocoder.duration_loss(self._units(batch))[0]
        return losses

    def _take(self, batch: Mapping[str, Any]) -> Tensor:
        """What the generator makes of this batch, from the discriminator's turn if it is still there."""
        if self._made is not None and self._made[0] is batch:
            made, self._made = self._made[1], None
            if made.requires_grad == torch.is_grad_enabled():
                return made
        return self._synthesize(batch)

    def _judge(self, samples: Tensor) -> list[list[Tensor]]:
        return [made for bank in self.discriminators for made in bank(samples)]

    def _crop(self, batch: Mapping[str, Any], samples: Tensor) -> Tensor:
        frames = self._units(batch).num_tokens
        size = min(self.config.judged_frames or frames, frames)
        # Both players must look at one place, also after a run was resumed, so it follows from the step alone.
        chance = torch.Generator().manual_seed(self.step)
        start = int(torch.randint(frames - size + 1, (1,), generator=chance))
        return samples[:, start * self.vocoder.hop : (start + size) * self.vocoder.hop]

    def _units(self, batch: Mapping[str, Any]) -> TokenSequence:
        units = batch["streams"][self.vocoder.stream]
        assert isinstance(units, TokenSequence)
        return units.expand()

    def _synthesize(self, batch: Mapping[str, Any]) -> Tensor:
        return self.vocoder.synthesize(batch["streams"], batch.get("speaker"))

    def _samples(self, batch: Mapping[str, Any]) -> Tensor:
        audio = batch["audio"]
        assert isinstance(audio, Audio)
        wanted = self._units(batch).num_tokens * self.vocoder.hop
        if audio.sample_rate != self.vocoder.sample_rate or audio.samples.shape[1:] != (1, wanted):
            raise DataError(
                f"Segments of {tuple(audio.samples.shape[1:])} samples at {audio.sample_rate} Hz do not match units of "
                f"{wanted} samples at {self.vocoder.sample_rate} Hz. Cut both at the same frames."
            )
        return audio.samples[:, 0]
