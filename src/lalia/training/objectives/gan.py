"""Adversarial training of a vocoder that maps units or spectra to samples (HiFi-GAN, arXiv:2010.05646 §2.4)."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from torch import Tensor

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.nn.spectral import LogMel
from lalia.streams import TokenSequence
from lalia.training.objectives.adversarial import GAN, discriminator_loss, feature_loss, generator_loss, row_means
from lalia.vocoders.durations import interior_durations
from lalia.vocoders.mel import MelVocoder
from lalia.vocoders.units import UnitVocoder

__all__ = [
    "VocoderGAN",
    "discriminator_loss",
    "feature_loss",
    "generator_loss",
]


class VocoderGAN(GAN):
    """The objective of a vocoder: mel, adversarial and feature losses, and durations where it predicts them.

    A batch is ``{"streams": Streams, "audio": Audio, "speaker": Tensor [B] | None}``: segments of one length,
    one code or spectrum per frame, and the samples that belong to them. Losses are sums over segments (durations: over
    units).

    :param mel: the spectrum whose L1 distance is minimised; its sample rate must be the vocoder's.
        HiFi-GAN's (80 bands, windows of 1024) at the vocoder's rate when None.
    """

    @dataclass(frozen=True)
    class Config(GAN.Config):
        _: KW_ONLY
        mel: LogMel.Config | None = None
        duration_weight: float = 1.0

        def tiny(self) -> "VocoderGAN.Config":
            return replace(super().tiny(), mel=None if self.mel is None else self.mel.tiny())

    def __init__(self, config: Config, vocoder: UnitVocoder | MelVocoder) -> None:
        mel = config.mel or LogMel.Config(vocoder.sample_rate)
        if mel.sample_rate != vocoder.sample_rate:
            raise ConfigError(
                f"VocoderGAN compares mel spectra at {mel.sample_rate} Hz, but the vocoder makes "
                f"{vocoder.sample_rate} Hz. Give both one sample rate."
            )
        super().__init__(config, vocoder, vocoder.hop)
        self.config, self.vocoder = config, vocoder
        self.mel = mel.build().to(next(vocoder.parameters()).device)
        self.weights = {**self.weights, "duration": config.duration_weight}

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """What to divide each loss of this batch by, for the present step."""
        units = self._units(batch)
        counts = self.terms(len(units))
        if self.vocoder.durations is not None:
            counts["duration"] = float(interior_durations(units)[1].sum())
        return counts

    def synthesize(self, batch: Mapping[str, Any]) -> tuple[Tensor, None]:
        return self.vocoder.synthesize(batch["streams"], batch.get("speaker")), None

    def compare(self, batch: Mapping[str, Any], made: Tensor, real: Tensor, more: None) -> dict[str, Tensor]:
        losses = {"mel": row_means((self.mel(made) - self.mel(real)).abs()).sum()}
        if self.vocoder.durations is not None:
            losses["duration"] = self.vocoder.duration_loss(self._units(batch))[0]
        return losses

    def _units(self, batch: Mapping[str, Any]) -> TokenSequence:
        units = batch["streams"][self.vocoder.stream]
        assert isinstance(units, TokenSequence)
        return units.expand()

    def real(self, batch: Mapping[str, Any]) -> Tensor:
        audio = batch["audio"]
        assert isinstance(audio, Audio)
        wanted = self._units(batch).num_tokens * self.vocoder.hop
        if audio.sample_rate != self.vocoder.sample_rate or audio.samples.shape[1:] != (1, wanted):
            raise DataError(
                f"Segments of {tuple(audio.samples.shape[1:])} samples at {audio.sample_rate} Hz do not match units of "
                f"{wanted} samples at {self.vocoder.sample_rate} Hz. Cut both at the same frames."
            )
        return audio.samples[:, 0]
