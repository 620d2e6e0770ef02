"""Stages: what is trained, on what, in which order.

A stage's ``task`` knows which part of a system it trains and how data become batches for it; the loop
knows none of this.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from fnmatch import fnmatch
from itertools import islice
from typing import Any, Protocol

from torch import nn

from lalia.config import Configuration
from lalia.data import Manifest, MixtureDataset, TokenDataset
from lalia.errors import ConfigError, RecipeError
from lalia.lm import SpeechLM
from lalia.training.distributed import rank, world_size
from lalia.training.loop import Trainer
from lalia.training.objectives.gan import VocoderGAN
from lalia.training.objectives.next_token import NextToken
from lalia.training.protocols import Batches, Objective
from lalia.training.segments import SegmentBatches
from lalia.training.token_batches import TokenBatches, held_out
from lalia.vocoders import Vocoder

__all__ = ["Parts", "PredictTokens", "Prepared", "StageData", "Task", "TrainStage", "TrainVocoder"]


class Parts(Protocol):
    """The parts of a system that can be trained."""

    lms: nn.ModuleDict
    vocoder: Vocoder | None


@dataclass(frozen=True)
class StageData:
    """Token shards with their recordings, and the held-out part of them."""

    train: MixtureDataset | TokenDataset
    dev: MixtureDataset | TokenDataset | None
    manifest: Manifest


@dataclass(frozen=True)
class Prepared:
    """What the loop needs."""

    objective: Objective
    batches: Batches
    validation: Iterable[Any] | None


@dataclass(frozen=True)
class Task(Configuration):
    """Which part of a system is trained, by which objective, on batches of which kind."""

    @property
    def trains_vocoder(self) -> bool:
        return False

    @abstractmethod
    def prepare(self, parts: Parts, data: StageData, seed: int) -> Prepared:
        """Objective and batches over the parts and data."""

    @abstractmethod
    def check(self, where: str, lms: tuple[str, ...], vocoder: bool) -> None:
        """:raises RecipeError: the part does not exist."""


@dataclass(frozen=True)
class PredictTokens(Task):
    """Next-token prediction by one language model.

    :param lm: which; the only one when not given.
    :param weights: of the loss of single streams.
    :param max_tokens: of a global batch, padding included.
    :param micro_tokens: of what is computed at once.
    :param max_length: of an utterance.
    """

    lm: str | None = None
    _: KW_ONLY
    weights: Mapping[str, float] = field(default_factory=dict)
    max_tokens: int = 16384
    micro_tokens: int | None = None
    max_length: int | None = 3072

    def tiny(self) -> "PredictTokens":
        return PredictTokens(self.lm, weights=self.weights, max_tokens=4096, micro_tokens=None, max_length=1024)

    def check(self, where: str, lms: tuple[str, ...], vocoder: bool) -> None:
        if (self.lm is None and len(lms) != 1) or (self.lm is not None and self.lm not in lms):
            raise RecipeError(
                f"{where} trains LM {self.lm!r}, but there is {', '.join(lms) or 'none'}. Name one of them."
            )

    def prepare(self, parts: Parts, data: StageData, seed: int) -> Prepared:
        lm = parts.lms[self.lm or next(iter(parts.lms))]
        assert isinstance(lm, SpeechLM)
        sizes = {"max_tokens": self.max_tokens, "max_length": self.max_length, "micro_tokens": self.micro_tokens}
        batches = TokenBatches(data.train, lm, seed=seed, **sizes)  # type: ignore[arg-type]
        validation = None if data.dev is None else held_out(TokenBatches(data.dev, lm, seed=0, **sizes))  # type: ignore[arg-type]
        return Prepared(NextToken(lm, self.weights), batches, validation)


@dataclass(frozen=True)
class TrainVocoder(Task):
    """Adversarial training of a unit vocoder on segments of recordings.

    :param seconds: length of a segment.
    :param batch_size: segments per global batch.
    :param voices: speakers by name, in the order of the vocoder's voices; empty for one voice.
    """

    gan: VocoderGAN.Config = field(default_factory=VocoderGAN.Config)
    _: KW_ONLY
    seconds: float = 1.0
    batch_size: int = 16
    micro_batch_size: int | None = None
    voices: tuple[str, ...] = ()

    @property
    def trains_vocoder(self) -> bool:
        return True

    def tiny(self) -> "TrainVocoder":
        return TrainVocoder(self.gan.tiny(), seconds=0.5, batch_size=2)

    def check(self, where: str, lms: tuple[str, ...], vocoder: bool) -> None:
        if not vocoder:
            raise RecipeError(f"{where} trains a vocoder, but there is none. Give the recipe one.")

    def prepare(self, parts: Parts, data: StageData, seed: int) -> Prepared:
        vocoder: Any = parts.vocoder
        stream = vocoder.stream
        rate = data.train.specs[stream].frame_rate or 0.0

        def segments(dataset: Any, batch_size: int, seed: int) -> SegmentBatches:
            if not isinstance(dataset, TokenDataset):
                if len(dataset.parts) != 1:
                    raise ConfigError("A vocoder is trained on one folder of shards. Tokenize its corpora together.")
                dataset = dataset.parts[0]
            return SegmentBatches(
                dataset,
                data.manifest,
                stream,
                sample_rate=vocoder.sample_rate,
                frames=max(round(self.seconds * rate), 1),
                batch_size=batch_size,
                micro_batch_size=self.micro_batch_size,
                voices=self.voices,
                num_voices=vocoder.num_speakers,
                seed=seed,
                rank=rank(),
                world=world_size(),
            )

        validation = None
        if data.dev is not None:
            held = segments(data.dev, self.batch_size, 0)
            validation = [micro for batch in islice(held, 4) for micro in batch]
        return Prepared(self.gan.build(vocoder), segments(data.train, self.batch_size, seed), validation)


@dataclass(frozen=True, kw_only=True)
class TrainStage(Configuration):
    """One stage of training.

    :param task: what is trained.
    :param trainer: for how long, how fast.
    :param train: fnmatch patterns on parameter names (``lms.ulm.*``, ``vocoder.*``); the rest is frozen.
    :param data: folders of token shards, where not given on the command line.
    """

    name: str
    task: Task
    trainer: Trainer.Config
    train: tuple[str, ...] = ("*",)
    data: tuple[str, ...] = ()

    def check(self, recipe: str, lms: tuple[str, ...], vocoder: bool) -> None:
        """:raises RecipeError: the stage trains what is not there."""
        self.task.check(f"Recipe {recipe!r}, stage {self.name!r}", lms, vocoder)

    def freeze(self, module: nn.Module) -> None:
        """Leave only the parameters of this stage trainable."""
        for name, p in module.named_parameters():
            p.requires_grad_(any(fnmatch(name, pattern) for pattern in self.train))
