"""Adversarial training of a codec (SoundStream, arXiv:2107.03312 §III-E; EnCodec, arXiv:2210.13438 §3.4)."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.errors import DataError
from lalia.nn.codebook import Usage
from lalia.nn.discriminators import MultiPeriod, MultiSpectrum
from lalia.nn.quantize import Quantized
from lalia.nn.spectral import LogMel
from lalia.tokenizers import Codec
from lalia.training.distributed import rank, sum_over_ranks, world_size
from lalia.training.objectives.adversarial import GAN, Discriminator, row_means
from lalia.training.objectives.distillation import Distillation

__all__ = ["CodecGAN"]


class CodecGAN(GAN):
    """The objective of a codec: multi-scale mel, adversarial, feature and commitment losses, and a teacher's.

    A batch is ``{"audio": Audio}``: segments of one length, a multiple of the codec's hop. Codebooks follow what was
    used in a step after all players have played, summed over micro-batches and ranks.

    :param mel_sizes: window lengths in samples of the mel spectra whose mean L1 distance is minimised; the hop is a
        quarter, and there are 5 bands for 32 samples (Improved RVQGAN, arXiv:2306.06546 §3.4).
    :param wave_weight: of the L1 distance of samples.
    :param commitment_weight: of the distance of frames from their codes.
    :param distillation: a teacher for the first codebook; none when None.
    """

    @dataclass(frozen=True)
    class Config(GAN.Config):
        _: KW_ONLY
        discriminators: tuple[Discriminator, ...] = field(
            default_factory=lambda: (MultiPeriod.Config(), MultiSpectrum.Config())
        )
        mel_weight: float = 15.0
        mel_sizes: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
        wave_weight: float = 0.1
        commitment_weight: float = 0.25
        distillation: Distillation.Config | None = None
        distillation_weight: float = 1.0

        def tiny(self) -> "CodecGAN.Config":
            distillation = None if self.distillation is None else self.distillation.tiny()
            return replace(super().tiny(), mel_sizes=self.mel_sizes[1:3], distillation=distillation)

    def __init__(self, config: Config, codec: Codec) -> None:
        super().__init__(config, codec, codec.hop)
        self.config, self.codec = config, codec
        device = next(codec.parameters()).device
        self.mels = [
            LogMel.Config(codec.sample_rate, n_fft=n, hop=n // 4, bins=max(5 * n // 32, 1)).build().to(device)
            for n in config.mel_sizes
        ]
        self.distillation: Distillation | None = None
        if config.distillation is not None:
            rate = codec.spec.frame_rate
            assert rate is not None
            self.distillation = config.distillation.build(dim=codec.config.network.dim, frame_rate=rate, device=device)
        self.weights = {
            **self.weights,
            "wave": config.wave_weight,
            "commitment": config.commitment_weight,
            "distillation": config.distillation_weight,
        }
        self._usage: list[Usage] | None = None

    def modules(self, player: str) -> list[nn.Module]:
        own = super().modules(player)
        return [*own, self.distillation.project] if player == "generator" and self.distillation is not None else own

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """What to divide each loss of this batch by, for the present step."""
        rows = len(batch["audio"])
        more = ["wave", "commitment", *(["distillation"] if self.distillation is not None else [])]
        return self.terms(rows) | dict.fromkeys(more, float(rows))

    def synthesize(self, batch: Mapping[str, Any]) -> tuple[Tensor, Quantized]:
        made: tuple[Tensor, Quantized] = self.codec(self.real(batch))
        return made

    def compare(self, batch: Mapping[str, Any], made: Tensor, real: Tensor, more: Quantized) -> dict[str, Tensor]:
        distances = [row_means((mel(made) - mel(real)).abs()).sum() for mel in self.mels]
        losses = {
            "mel": torch.stack(distances).mean(),
            "wave": row_means((made - real).abs()).sum(),
            "commitment": more.commitment.sum(),
        }
        if self.distillation is not None:
            losses["distillation"] = self.distillation.loss(more.first, batch["audio"])
        if self.codec.training:
            before = self._usage
            self._usage = more.usage if before is None else [a + b for a, b in zip(before, more.usage, strict=True)]
        return losses

    def finish_step(self, *, updated: bool) -> None:
        """Let the codebooks follow what all ranks used; what came of a step that was skipped is dropped."""
        usage, self._usage = self._usage, None
        if updated:
            books = self.codec.quantizer.codebooks
            # A rank without a batch has used nothing, and must take part in the sums all the same.
            used = [Usage.nothing(book) for book in books] if usage is None else usage
            self.codec.quantizer.update([u.reduced(sum_over_ranks, rank(), world_size()) for u in used])

    def real(self, batch: Mapping[str, Any]) -> Tensor:
        audio = batch["audio"]
        assert isinstance(audio, Audio)
        _, channels, n = audio.samples.shape
        if audio.sample_rate != self.codec.sample_rate or channels != 1 or n % self.codec.hop or not n:
            raise DataError(
                f"Segments of {(channels, n)} samples at {audio.sample_rate} Hz are not for a codec of "
                f"{self.codec.sample_rate} Hz and frames of {self.codec.hop}. Cut mono sound at whole frames."
            )
        return audio.samples[:, 0]
