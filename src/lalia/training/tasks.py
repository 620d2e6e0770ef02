"""Tasks: which part of a system is trained, by which objective, on batches of which kind."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import islice
from typing import Any, Protocol, Self

from torch import nn

from lalia.config import Configuration
from lalia.errors import DataError, RecipeError
from lalia.lm import Graph, SpeechLM, Weight
from lalia.streams import StreamSpec
from lalia.tokenizers import Mel
from lalia.training.analysis import Analysis, analysis_of
from lalia.training.distributed import rank, world_size
from lalia.training.interleave import Interleave
from lalia.training.objectives.gan import VocoderGAN
from lalia.training.objectives.next_token import NextToken
from lalia.training.objectives.part import PartLoss
from lalia.training.protocols import Batches, Objective
from lalia.training.recordings import Recorded
from lalia.training.segments import SegmentBatches
from lalia.training.stream_batches import StreamBatches
from lalia.training.token_batches import TokenBatches, held_out
from lalia.training.utterances import UtteranceBatches
from lalia.vocoders import Chain, LearnsAlone, LearnsFromStreams, MelVocoder, Stage, UnitVocoder, Vocoder

__all__ = [
    "Parts",
    "PredictTokens",
    "Prepared",
    "StageData",
    "System",
    "Task",
    "TrainPart",
    "TrainVocoder",
    "first_batches",
    "if_any",
]

_HELD_OUT_BATCHES = 4
"""Of segments or utterances with sound, at an evaluation."""


class Parts(Protocol):
    """The parts of a system that can be trained."""

    lms: nn.ModuleDict
    vocoder: Vocoder | None


@dataclass(frozen=True)
class StageData:
    """What a stage learns from, and what is held out of it."""

    train: Recorded
    dev: Recorded | None


@dataclass(frozen=True)
class Prepared:
    """What the loop needs."""

    objective: Objective
    batches: Batches
    validation: Iterable[Any] | None


@dataclass(frozen=True)
class System:
    """What there is to train, as a recipe has it.

    :param specs: of all streams, hidden states among them.
    """

    lms: Mapping[str, SpeechLM.Config]
    vocoder: Vocoder.Config | None
    specs: Mapping[str, StreamSpec]


@dataclass(frozen=True)
class Task(Configuration):
    """Which part of a system is trained, by which objective, on batches of which kind."""

    @property
    def trains_vocoder(self) -> bool:
        return False

    def needs(self, system: System) -> tuple[str, ...] | None:
        """The streams that it learns from; None for all that there are."""
        return None

    def stretched(self, ratio: float) -> Self:
        """The same task where recordings have so many times as many tokens."""
        return self

    @abstractmethod
    def prepare(self, parts: Parts, data: StageData, seed: int) -> Prepared:
        """Objective and batches over the parts and data."""

    @abstractmethod
    def check(self, where: str, system: System) -> None:
        """Refuse to train what is not there.

        :param where: the recipe and the stage, for the message.
        :raises RecipeError: the part does not exist, or cannot be trained so.
        """


@dataclass(frozen=True)
class PredictTokens(Task):
    """Next-token prediction by one language model.

    :param lm: which; the only one when not given.
    :param weights: of the loss of single streams, and of their cells where these differ; 1 where not given.
    :param max_tokens: of a global batch, padding included.
    :param micro_tokens: of what is computed at once.
    :param max_length: of an utterance.
    :param seconds: of a longer utterance, a stretch of this length, drawn anew each time.
    :param interleave: how utterances of speech and text become spans of both.
    """

    lm: str | None = None
    _: KW_ONLY
    weights: Mapping[str, float | Weight] = field(default_factory=dict)
    max_tokens: int = 16384
    micro_tokens: int | None = None
    max_length: int | None = 3072
    seconds: float | None = None
    interleave: Interleave | None = None

    def tiny(self) -> "PredictTokens":
        interleave = None if self.interleave is None else self.interleave.tiny()
        weights = {term: w.tiny() if isinstance(w, Weight) else w for term, w in self.weights.items()}
        return replace(
            self, weights=weights, max_tokens=4096, micro_tokens=None, max_length=4096, interleave=interleave
        )

    def stretched(self, ratio: float) -> "PredictTokens":
        def more(tokens: int | None) -> int | None:
            return None if tokens is None else math.ceil(tokens * ratio)

        return replace(
            self,
            max_tokens=math.ceil(self.max_tokens * ratio),
            micro_tokens=more(self.micro_tokens),
            max_length=more(self.max_length),
        )

    def check(self, where: str, system: System) -> None:
        lms, specs = system.lms, system.specs
        if (self.lm is None and len(lms) != 1) or (self.lm is not None and self.lm not in lms):
            raise RecipeError(
                f"{where} trains LM {self.lm!r}, but there is {', '.join(lms) or 'none'}. Name one of them."
            )
        lm = lms[self.lm or next(iter(lms))]
        known = {**specs, **lm.layout.all_specs(specs)}
        for term, weight in self.weights.items():
            # A head may have more terms than one, which are named after its stream.
            if term not in lm.heads and term.rpartition(".")[0] not in lm.heads:
                raise RecipeError(
                    f"{where} weighs {term!r}, but the LM predicts {', '.join(lm.heads)}. Name one of them."
                )
            if isinstance(weight, Weight) and not weight.even:
                if term not in lm.heads or not lm.heads[term].weighs_cells:
                    raise RecipeError(
                        f"{where} weighs cells of {term!r}, whose loss is not one of cells. Give a number."
                    )
                weight.check(where, term, known[term])

    def prepare(self, parts: Parts, data: StageData, seed: int) -> Prepared:
        graph = Graph({n: lm for n, lm in parts.lms.items() if isinstance(lm, SpeechLM)})
        name = self.lm or next(iter(graph.lms))

        def batches(recorded: Recorded, seed: int) -> TokenBatches:
            return TokenBatches(
                recorded.tokens,
                graph,
                name=name,
                seed=seed,
                max_tokens=self.max_tokens,
                max_length=self.max_length,
                micro_tokens=self.micro_tokens,
                crop_seconds=self.seconds,
                interleave=self.interleave,
            )

        validation = if_any(data.dev, lambda dev: held_out(batches(dev, 0)))
        return Prepared(NextToken(graph, self.weights, name=name), batches(data.train, seed), validation)


@dataclass(frozen=True)
class TrainVocoder(Task):
    """Adversarial training of a vocoder of units or mel spectra on segments of recordings; of a chain, its last part.

    :param mel: the spectrum that a vocoder of mel spectra reads, which is computed of each segment. When not given, it
        is that of the shards or of the chain's stage; other features are read from the shards.
    :param seconds: length of a segment.
    :param batch_size: segments per global batch.
    :param voices: speakers by name, in the order of the vocoder's voices; empty for one voice.
    """

    gan: VocoderGAN.Config = field(default_factory=VocoderGAN.Config)
    _: KW_ONLY
    mel: Mel.Config | None = None
    seconds: float = 1.0
    batch_size: int = 16
    micro_batch_size: int | None = None
    voices: tuple[str, ...] = ()

    @property
    def trains_vocoder(self) -> bool:
        return True

    def needs(self, system: System) -> tuple[str, ...] | None:
        last = system.vocoder.vocoder if isinstance(system.vocoder, Chain.Config) else system.vocoder
        return last.reads if isinstance(last, UnitVocoder.Config) else None

    def tiny(self) -> "TrainVocoder":
        return replace(
            self, gan=self.gan.tiny(), seconds=0.5, batch_size=2, micro_batch_size=None, voices=self.voices[:2]
        )

    def check(self, where: str, system: System) -> None:
        whole = system.vocoder
        last = whole.vocoder if isinstance(whole, Chain.Config) else whole
        if not isinstance(last, UnitVocoder.Config | MelVocoder.Config):
            kind = "there is none" if last is None else f"it is {last.owner.__name__}"
            raise RecipeError(f"{where} trains a vocoder of units or mel, but {kind}. Give the recipe a UnitVocos.")
        num_voices = max(last.num_speakers, 1) if isinstance(last, UnitVocoder.Config) else 1
        if len(self.voices) > num_voices:
            raise RecipeError(
                f"{where} names {len(self.voices)} voices, but the vocoder has {num_voices}. Raise num_speakers."
            )

    def prepare(self, parts: Parts, data: StageData, seed: int) -> Prepared:
        whole = parts.vocoder
        vocoder = whole.vocoder if isinstance(whole, Chain) else whole
        assert isinstance(vocoder, UnitVocoder | MelVocoder)

        def batches(recorded: Recorded, seed: int) -> SegmentBatches:
            return _segments(
                recorded,
                vocoder.stream,
                vocoder,
                self.seconds,
                self.batch_size,
                self.micro_batch_size,
                self.voices,
                seed,
                conditions=vocoder.conditions.names if isinstance(vocoder, UnitVocoder) else (),
                analysis=analysis_of(vocoder, whole, recorded, self.mel) if isinstance(vocoder, MelVocoder) else None,
            )

        validation = if_any(data.dev, lambda dev: first_batches(batches(dev, 0)))
        return Prepared(self.gan.build(vocoder), batches(data.train, seed), validation)


@dataclass(frozen=True)
class TrainPart(Task):
    """Training of one part of a vocoder by its own losses, the parts before it replaced by the recordings.

    :param makes: the stream that the part makes; ``audio`` is the last part.
    :param seconds: length of segments, ``batch_size`` of them in a global batch; whole utterances when None.
    :param max_tokens: units of a global batch of whole utterances, padding included.
    :param max_length: units of an utterance; of a longer one, a stretch.
    :param voices: speakers by name, in the order of the part's voices; empty for one voice.
    """

    makes: str = "audio"
    _: KW_ONLY
    seconds: float | None = None
    batch_size: int = 16
    max_tokens: int = 16384
    max_length: int | None = None
    voices: tuple[str, ...] = ()

    @property
    def trains_vocoder(self) -> bool:
        return True

    def tiny(self) -> "TrainPart":
        return replace(
            self,
            seconds=None if self.seconds is None else 0.25,
            batch_size=2,
            max_tokens=160,
            max_length=40,
            voices=self.voices[:2],
        )

    def check(self, where: str, system: System) -> None:
        vocoder = system.vocoder
        made = vocoder.makes if isinstance(vocoder, Chain.Config) else ("audio",) if vocoder is not None else ()
        if self.makes not in made:
            raise RecipeError(
                f"{where} trains what makes {self.makes!r}, but the vocoder makes {', '.join(made) or 'nothing'}. "
                "Name one of these."
            )
        if not hasattr(self._part(vocoder).owner, "losses"):
            raise RecipeError(
                f"{where} trains {self._part(vocoder).owner.__name__}, which has no losses of its own. "
                "Train it with another task."
            )

    def needs(self, system: System) -> tuple[str, ...] | None:
        part = self._part(system.vocoder)
        alone = isinstance(part, Stage.Config) and hasattr(part.owner, "learns_from")
        return (part.stream, *part.made) if alone else None

    def _part(self, vocoder: Vocoder.Config | None) -> Any:
        """The configuration of the part."""
        if not isinstance(vocoder, Chain.Config):
            return vocoder
        return (*vocoder.stages, vocoder.vocoder)[vocoder.makes.index(self.makes)]

    def prepare(self, parts: Parts, data: StageData, seed: int) -> Prepared:
        whole = parts.vocoder
        assert whole is not None
        part = whole.part(self.makes) if isinstance(whole, Chain) else whole
        assert isinstance(part, LearnsAlone)
        stream = whole.reads[0]

        def batches(recorded: Recorded, seed: int) -> Batches:
            if isinstance(part, LearnsFromStreams):
                return StreamBatches(
                    recorded,
                    part.learns_from,
                    max_tokens=self.max_tokens,
                    voices=self.voices,
                    num_voices=part.num_speakers,
                    seed=seed,
                    rank=rank(),
                    world=world_size(),
                )
            if self.seconds is not None:
                return _segments(recorded, stream, part, self.seconds, self.batch_size, None, self.voices, seed)
            return UtteranceBatches(
                recorded,
                stream,
                sample_rate=part.sample_rate,
                max_tokens=self.max_tokens,
                max_length=self.max_length,
                voices=self.voices,
                num_voices=part.num_speakers,
                seed=seed,
                rank=rank(),
                world=world_size(),
            )

        validation = if_any(data.dev, lambda dev: first_batches(batches(dev, 0)))
        return Prepared(PartLoss(whole, part), batches(data.train, seed), validation)


class _Speaks(Protocol):
    sample_rate: int
    num_speakers: int


def _segments(
    recorded: Recorded,
    stream: str,
    vocoder: _Speaks,
    seconds: float,
    batch_size: int,
    micro_batch_size: int | None,
    voices: tuple[str, ...],
    seed: int,
    *,
    conditions: tuple[str, ...] = (),
    analysis: Analysis | None = None,
) -> SegmentBatches:
    rate = (recorded.tokens.specs[stream].frame_rate or 0.0) if analysis is None else analysis.frame_rate
    return SegmentBatches(
        recorded,
        stream,
        sample_rate=vocoder.sample_rate,
        frames=max(round(seconds * rate), 1),
        batch_size=batch_size,
        conditions=conditions,
        analysis=analysis,
        micro_batch_size=micro_batch_size,
        voices=voices,
        num_voices=vocoder.num_speakers,
        seed=seed,
        rank=rank(),
        world=world_size(),
    )


def first_batches(batches: Batches) -> list[Any]:
    """The first micro-batches, for validation."""
    return [micro for batch in islice(batches, _HELD_OUT_BATCHES) for micro in batch]


def if_any(dev: Recorded | None, make: Callable[[Recorded], list[Any]]) -> list[Any] | None:
    """Held-out batches, unless what is held out is too little to make one."""
    if dev is None:
        return None
    try:
        return make(dev)
    except DataError:
        return None
