"""Recipes: a whole system as plain data, checked when it is written down.

A recipe says which streams there are, which language models read and predict them, and what turns
streams into sound. ``config.to_dict`` and ``from_dict`` keep it beside the weights.
"""

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from lalia.config import Configuration
from lalia.errors import LaliaError, RecipeError
from lalia.lm import SpeechLM
from lalia.lm.graph import HIDDEN_SUFFIX, hidden_spec
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.training.stages import TrainStage
from lalia.training.tasks import System
from lalia.vocoders import Vocoder

__all__ = ["Recipe", "Stream", "Talk", "build_lms", "count_parameters", "slices_of"]


@runtime_checkable
class TokenizerConfig(Protocol):
    """A tokenizer's configuration knows what its stream will hold before anything is built.

    One that reads speech also has a ``sample_rate``.
    """

    @property
    def spec(self) -> StreamSpec: ...


@dataclass(frozen=True)
class Stream(Configuration):
    """Where a stream comes from.

    :param tokenizer: what makes it of audio or text.
    :param channel: whose side of the conversation it is; None where there is one, or for the model's own.
    :param codebooks: the first codebook that is taken of the tokenizer's, and the one after the last (AudioLM's coarse
        and fine codes); all when not given.
    :param per_run_of: a stream without repeats: this one then has one token for each of its runs, made of all frames
        of the run (pGSLM's durations and pitch).
    :param aligned_to: a stream with a clock: a text then keeps time with it, each word beginning at the frame at
        which it is said (Moshi's inner monologue), and states are those of its frames (Flow-Omni).
    :param text: what it always holds, whatever is said: a part of a prompt, with names of special tokens read as these.
    """

    tokenizer: Configuration
    _: KW_ONLY
    channel: str | None = None
    codebooks: tuple[int, int] | None = None
    per_run_of: str | None = None
    aligned_to: str | None = None
    text: str | None = None

    @property
    def spec(self) -> StreamSpec:
        """What it holds.

        :raises RecipeError: the tokenizer does not say, or has not so many codebooks.
        """
        if not isinstance(self.tokenizer, TokenizerConfig):
            raise RecipeError(
                f"{type(self.tokenizer).__qualname__} does not say what its stream holds. Give it a spec."
            )
        spec = self.tokenizer.spec
        if self.per_run_of is not None:
            spec = replace(spec, frame_rate=None, deduplicated=False)
        if self.codebooks is not None:
            kind, (first, stop) = spec.kind, self.codebooks
            if not isinstance(kind, Discrete) or not 0 <= first < stop <= kind.num_codebooks:
                raise RecipeError(f"Codebooks {first} to {stop} are not in {kind}. Choose others.")
            spec = replace(spec, kind=replace(kind, num_codebooks=stop - first))
        return spec

    def take(self, tokens: TokenSequence) -> TokenSequence:
        """Its own codebooks of what the tokenizer made."""
        if self.codebooks is None:
            return tokens
        first, stop = self.codebooks
        return replace(tokens, values=tokens.values[:, first:stop])

    @property
    def sample_rate(self) -> int | None:
        """Of the sound that the tokenizer reads, in Hz; None where it reads text."""
        return getattr(self.tokenizer, "sample_rate", None)


@dataclass(frozen=True, kw_only=True)
class Talk(Configuration):
    """How a text LM that hears is talked to, turn by turn; what stands around the turns is its chat template's.

    :param lm: the language model.
    :param before: the stream of what was said before, and of the template up to the question.
    :param question: the stream of what the user says, as it is heard.
    :param manner: the stream of how he says it, behind the question; none where words are all that is heard.
    :param after: the stream of the template between the question and the reply.
    :param reply: the stream of the text of the reply.
    :param by_sentence: speak a sentence when all of it is written (a cascade with a synthesizer of sentences).
    :param system: the instructions, where no others are given.
    :param unclear: what is replied to what was not understood.
    """

    lm: str = "llm"
    before: str = "before"
    question: str = "question"
    manner: str | None = None
    after: str = "after"
    reply: str = "text"
    by_sentence: bool = False
    system: str = "You are a helpful voice assistant. Answer in one or two short sentences."
    unclear: str = "Sorry, I did not understand that. Could you say it again?"

    @property
    def streams(self) -> tuple[str, ...]:
        heard = (self.question,) if self.manner is None else (self.question, self.manner)
        return (self.before, *heard, self.after, self.reply)


def slices_of(streams: Mapping[str, Stream], name: str) -> tuple[str, ...]:
    """The streams that are slices of the codebooks of stream ``name``, in the order of these; none where it is one."""
    whole = streams[name]
    if whole.codebooks is not None:
        return ()
    found = [
        (s.codebooks[0], n)
        for n, s in streams.items()
        if s.codebooks is not None and (s.tokenizer, s.channel) == (whole.tokenizer, whole.channel)
    ]
    return tuple(n for _, n in sorted(found))


@dataclass(frozen=True, kw_only=True)
class Recipe(Configuration):
    """One published system.

    :param name: the module of ``lalia.recipes``.
    :param paper: where it is from.
    :param streams: by name.
    :param lms: by name, in the order in which they run.
    :param vocoder: what makes sound of streams; None where the system makes none.
    :param talk: how it is talked to, where it keeps a conversation of turns.
    :param stages: how it is trained, in order.
    :param voices: names of the vocoder's voices, in order; those of the stage that trains it when not given.
    :param published_parameters: of the language models, where the source gives it.
    :raises RecipeError: parts that do not fit; the message names them.
    """

    name: str
    paper: str
    streams: Mapping[str, Stream]
    lms: Mapping[str, SpeechLM.Config]
    vocoder: Vocoder.Config | None = None
    talk: Talk | None = None
    stages: tuple[TrainStage, ...] = ()
    voices: tuple[str, ...] = ()
    published_parameters: int | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        specs = self.specs
        for name, stream in self.streams.items():
            for field_, other in (("per_run_of", stream.per_run_of), ("aligned_to", stream.aligned_to)):
                if other is not None and (other == name or other not in specs):
                    raise RecipeError(
                        f"Recipe {self.name!r}: stream {name!r} has {field_}={other!r}, but there is "
                        f"{', '.join(specs)}. Name one of the others."
                    )
        for name, lm in self.lms.items():
            try:
                known = lm.layout.all_specs(specs)
            except LaliaError as error:
                raise RecipeError(f"Recipe {self.name!r}, LM {name!r}: {error}") from None
            aligned = {s for s, h in lm.heads.items() if h.aligned and s in specs}
            for part, used in (("inputs", list(lm.inputs)), ("heads", [s for s in lm.heads if s not in aligned])):
                for used_stream in used:
                    if used_stream not in known:
                        raise RecipeError(
                            f"Recipe {self.name!r}: {part} of LM {name!r} name stream {used_stream!r}, but its layout "
                            f"has {', '.join(known)}. Fix the name or the layout."
                        )
            # How wide hidden states are is known when the model is built.
            specs = {**specs, name + HIDDEN_SUFFIX: hidden_spec(1)}
        for read in () if self.vocoder is None else self.vocoder.reads:
            if read not in specs:
                raise RecipeError(
                    f"Recipe {self.name!r}: the vocoder reads stream {read!r}, but there is {', '.join(specs)}. "
                    "Name one of them."
                )
        if self.talk is not None:
            own = self.lms[self.talk.lm].layout.streams if self.talk.lm in self.lms else ()
            lacking = [n for n in self.talk.streams if n not in own]
            if lacking:
                raise RecipeError(
                    f"Recipe {self.name!r} is talked to by stream {lacking[0]!r}, which LM {self.talk.lm!r} does not "
                    "have. Name one of its streams."
                )
        names = [s.name for s in self.stages]
        if len(set(names)) < len(names):
            raise RecipeError(f"Recipe {self.name!r} has stages {', '.join(names)}. Give each a name of its own.")
        for stage in self.stages:
            stage.check(self.name, System(self.lms, self.vocoder, specs))

    @property
    def specs(self) -> dict[str, StreamSpec]:
        """What each stream holds."""
        return {name: s.spec for name, s in self.streams.items()}

    @property
    def channels(self) -> tuple[str | None, ...]:
        """Whose sides of the conversation there are: the model's own first, where it has no name."""
        return self.channels_of(self.streams)

    def channels_of(self, names: Iterable[str]) -> tuple[str | None, ...]:
        """The same of some streams only; what always holds the same is on nobody's side."""
        named = dict.fromkeys(self.streams[n].channel for n in names if self.streams[n].text is None)
        return tuple(sorted(named, key=lambda c: c is not None))

    def stages_of(self, name: str | None) -> tuple[TrainStage, ...]:
        """The stages of a run: one by its name, or all but those that fit a trained model to something else."""
        return tuple(s for s in self.stages if s.name == name or (name is None and s.init is None))

    @property
    def speech_stream(self) -> str:
        """The stream of speech that the first language model reads and predicts, or the first of all.

        :raises RecipeError: there is none.
        """
        predicted = [s for lm in self.lms.values() for s in lm.layout.streams if s in lm.heads]
        for stream in (*predicted, *self.streams):
            if stream in self.streams and self.streams[stream].sample_rate is not None:
                return stream
        raise RecipeError(f"Model {self.name!r} has no stream of speech. Choose another model.")

    @property
    def voice_names(self) -> tuple[str, ...]:
        """The voices that have a name, from voice 0 on."""
        named = (getattr(stage.task, "voices", ()) for stage in self.stages)
        return self.voices or next((v for v in named if v), ())


def build_lms(recipe: Recipe) -> nn.ModuleDict:
    """The language models, by name, in order; each may read the hidden states of those before it."""
    specs = recipe.specs
    lms = nn.ModuleDict()
    for name, config in recipe.lms.items():
        lm: SpeechLM = config.build(specs)
        lms[name] = lm
        specs[name + HIDDEN_SUFFIX] = hidden_spec(lm.backbone.dim)
    return lms


def count_parameters(recipe: Recipe) -> dict[str, int]:
    """Parameters of each language model and of the vocoder, without memory for any."""
    counts = {}
    with torch.device("meta"):
        for name, lm in build_lms(recipe).items():
            counts[name] = sum(p.numel() for p in lm.parameters())
        if recipe.vocoder is not None:
            counts["vocoder"] = sum(p.numel() for p in recipe.vocoder.build(recipe.specs).parameters())
    return counts
