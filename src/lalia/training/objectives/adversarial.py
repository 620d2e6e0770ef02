"""What adversarial training of anything that makes sound shares: the opponents, their losses, and whose turn it is."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from lalia.config import Configurable
from lalia.nn.discriminators import MultiPeriod, MultiResolution, MultiScale, MultiSpectrum
from lalia.nn.spectral import spectral_distance

__all__ = [
    "GAN",
    "Discriminator",
    "discriminator_loss",
    "feature_loss",
    "generator_loss",
    "row_means",
]

Made = Sequence[Sequence[Tensor]]
"""For each discriminator, the outputs of its layers; the last are scores."""


Discriminator = MultiPeriod.Config | MultiScale.Config | MultiResolution.Config | MultiSpectrum.Config


def _tiny(config: Discriminator) -> Discriminator:
    match config:
        case MultiPeriod.Config():
            return replace(config, periods=config.periods[:2], channels=(4, 8))
        case MultiScale.Config():
            return replace(config, num_scales=1, channels=(4, 8), kernels=(15, 5), strides=(1, 4), groups=(1, 2))
        case MultiResolution.Config():
            return replace(config, sizes=config.sizes[:1], channels=4, num_strided=1)
        case MultiSpectrum.Config():
            return replace(config, sizes=config.sizes[:1], channels=4, dilations=config.dilations[:1])


def row_means(x: Tensor) -> Tensor:
    """The mean of each row, [B, ...] to [B]."""
    return x.float().flatten(1).mean(1)


def discriminator_loss(real: Made, made: Made) -> Tensor:
    """Least squares: sum over discriminators of mean (D(x) - 1)^2 + mean D(G)^2, summed over rows."""
    return torch.stack(
        [row_means((r[-1] - 1) ** 2).sum() + row_means(m[-1] ** 2).sum() for r, m in zip(real, made, strict=True)]
    ).sum()


def generator_loss(made: Made) -> Tensor:
    """Least squares: sum over discriminators of mean (D(G) - 1)^2, summed over rows."""
    return torch.stack([row_means((m[-1] - 1) ** 2).sum() for m in made]).sum()


def feature_loss(real: Made, made: Made) -> Tensor:
    """Mean absolute difference of every hidden layer, summed over layers, discriminators and rows."""
    return torch.stack(
        [
            row_means((a.detach() - b).abs()).sum()
            for r, m in zip(real, made, strict=True)
            for a, b in zip(r[:-1], m[:-1], strict=True)
        ]
    ).sum()


class GAN(Configurable):
    """An objective with opponents; a subclass says what is made, what is real, and what else is compared.

    Losses are sums over segments; ``counts`` has the numbers to divide by.

    :param discriminators: the opponents.
    :param judged_frames: frames of each segment that the discriminators look at, at a place that changes with
        the step; all when None. They cost more than the rest, and need less context.
    :param warmup_steps: steps before the discriminators join; until then only the rest is compared.
    :param stft_sizes: window lengths of the multi-resolution STFT distance, used when ``stft_weight`` is not 0.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        _: KW_ONLY
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

        def tiny(self) -> Self:
            return replace(
                self,
                discriminators=tuple(_tiny(d) for d in self.discriminators[:2]),
                judged_frames=min(self.judged_frames or 10, 10),
                warmup_steps=min(self.warmup_steps, 2),
                stft_sizes=self.stft_sizes[:1],
            )

    players = ("discriminator", "generator")

    def __init__(self, config: Config, generator: nn.Module, hop: int) -> None:
        """
        :param hop: samples of a frame.
        """
        self.common, self.generator, self.hop = config, generator, hop
        self.discriminators = nn.ModuleList(d.build() for d in config.discriminators)
        self.discriminators.to(next(generator.parameters()).device)
        self.step = 0
        """The training step, set by the loop."""
        self.weights: Mapping[str, float] = {
            "discriminator": 1.0,
            "adversarial": config.adversarial_weight,
            "feature": config.feature_weight,
            "mel": config.mel_weight,
            "stft": config.stft_weight,
        }
        self._made: tuple[Mapping[str, Any], Tensor, Any] | None = None

    @abstractmethod
    def synthesize(self, batch: Mapping[str, Any]) -> tuple[Tensor, Any]:
        """Samples [B, N] made for a batch, and what else ``compare`` needs of it."""

    @abstractmethod
    def real(self, batch: Mapping[str, Any]) -> Tensor:
        """The samples [B, N] of a batch."""

    @abstractmethod
    def compare(self, batch: Mapping[str, Any], made: Tensor, real: Tensor, more: Any) -> dict[str, Tensor]:
        """The losses of the generator that need no opponent, ``mel`` among them."""

    @property
    def warm(self) -> bool:
        """Whether the discriminators play."""
        return bool(self.discriminators) and self.step >= self.common.warmup_steps

    def modules(self, player: str) -> list[nn.Module]:
        """What this player's optimizer updates."""
        return [self.discriminators] if player == "discriminator" else [self.generator]

    def terms(self, rows: int) -> dict[str, float]:
        """The terms that are divided by the number of segments, for the present step."""
        names = ["mel"]
        names += ["stft"] if self.common.stft_weight else []
        names += ["discriminator", "adversarial", "feature"] if self.warm else []
        return dict.fromkeys(names, float(rows))

    def losses(self, player: str, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The sums of this player's losses; nothing for the discriminator before it joins."""
        if player == "discriminator":
            return self._discriminator(batch) if self.warm else {}
        return self._generator(batch)

    def _discriminator(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        # The generator plays next on this batch and with these parameters: keep what it made for it.
        made, more = self.synthesize(batch)
        self._made = (batch, made, more)
        real = self.real(batch)
        real, made = self._crop(real), self._crop(made.detach())
        return {"discriminator": discriminator_loss(self._judge(real), self._judge(made))}

    def _generator(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        made, more = self._take(batch)
        real = self.real(batch)
        losses = self.compare(batch, made, real, more)
        if self.common.stft_weight:
            losses["stft"] = spectral_distance(made, real, self.common.stft_sizes).sum()
        if self.warm:
            with torch.no_grad():
                judged_real = self._judge(self._crop(real))
            judged = self._judge(self._crop(made))
            losses["adversarial"] = generator_loss(judged)
            losses["feature"] = feature_loss(judged_real, judged)
        return losses

    def _take(self, batch: Mapping[str, Any]) -> tuple[Tensor, Any]:
        """What the generator makes of this batch, from the discriminator's turn if it is still there."""
        if self._made is not None and self._made[0] is batch:
            (_, made, more), self._made = self._made, None
            if made.requires_grad == torch.is_grad_enabled():
                return made, more
        return self.synthesize(batch)

    def _judge(self, samples: Tensor) -> list[list[Tensor]]:
        return [made for bank in self.discriminators for made in bank(samples)]

    def _crop(self, samples: Tensor) -> Tensor:
        frames = samples.shape[1] // self.hop
        size = min(self.common.judged_frames or frames, frames)
        # Both players must look at one place, also after a run was resumed, so it follows from the step alone.
        chance = torch.Generator().manual_seed(self.step)
        start = int(torch.randint(frames - size + 1, (1,), generator=chance))
        return samples[:, start * self.hop : (start + size) * self.hop]
