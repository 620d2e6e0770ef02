"""Continuing speech and answering it, by any recipe: prompts to streams, through the language models, to sound."""

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.layouts import Concat, Layout, Parallel, Switch
from lalia.lm import Graph, SpeechLM
from lalia.lm.graph import HIDDEN_SUFFIX
from lalia.model.continuation import Continuation
from lalia.model.producing import Wanted, produce
from lalia.realtime.events import Reply
from lalia.recipe import Recipe
from lalia.streams import Streams
from lalia.tokenizers import Text

if TYPE_CHECKING:
    from lalia.model.model import Model

__all__ = ["Reply", "answer", "go_on", "is_duplex", "text_of"]

_TEXT_TOKENS = 256
"""Most tokens of a text that is answered with."""

_TOKENS_PER_SECOND = 60
"""More than any stream without a clock has."""


def _parts(layout: Layout) -> list[Layout]:
    return [p for part in layout.parts for p in _parts(part)] if isinstance(layout, Concat) else [layout]


def is_duplex(recipe: Recipe) -> bool:
    """Whether a language model hears one side of a conversation while it speaks the other."""
    for lm in recipe.lms.values():
        for part in _parts(lm.layout):
            channels = {recipe.streams[s].channel for s in part.streams if s in recipe.streams}
            if isinstance(part, Parallel) and len(channels) > 1:
                return True
    return False


def _lms(model: "Model") -> dict[str, SpeechLM]:
    return {n: lm for n, lm in model.lms.items() if isinstance(lm, SpeechLM)}


def _streams(model: "Model") -> dict[str, None]:
    """The streams of the language models, in order, without hidden states and markers."""
    graph = Graph(_lms(model))
    return {s: None for n in graph.lms for s in graph.streams(n)}


def _is_text(recipe: Recipe, stream: str) -> bool:
    return isinstance(recipe.streams[stream].tokenizer, Text.Config)


def _spans_of_text(model: "Model") -> set[str]:
    """Texts that would take turns with speech: what goes on speaking writes nothing in between."""
    parts = [part for lm in _lms(model).values() for part in _parts(lm.layout)]
    return {s for p in parts if isinstance(p, Switch) for s in p.switched if _is_text(model.recipe, s)}


def _predicted(model: "Model") -> set[str]:
    return {s for lm in _lms(model).values() for s in lm.heads}


def go_on(
    model: "Model", prompt: Audio, *, seconds: float, temperature: float | None, seed: int, voice: int | None
) -> Continuation:
    """The prompt and ``seconds`` more.

    :param prompt: [1, C, N]; where the recipe has two sides, one channel is the model's own, and the other silent.
    :raises ConfigError: the recipe cannot go on with speech of its own.
    """
    recipe, names = model.recipe, _streams(model)
    started = time.perf_counter()
    heard = {s for s in names if recipe.streams[s].channel != "user"}
    if not any(recipe.streams[s].sample_rate is not None and s in _predicted(model) for s in heard):
        raise ConfigError(f"Model {recipe.name!r} does not go on with speech; it answers. Use lalia chat.")
    if not is_duplex(recipe) and set(names) - heard:
        raise ConfigError(f"Model {recipe.name!r} answers what it hears, and goes on with nothing. Use lalia chat.")
    sounds = {}
    given = prompt.samples.shape[1]
    for i, channel in enumerate(recipe.channels):
        own = prompt.channel(min(i, given - 1))
        if i and given == 1:
            own = Audio(torch.zeros_like(prompt.samples), prompt.sample_rate)
        # The other side is known to the end: it is silent.
        sounds[channel] = own if i == 0 or channel != "user" else _padded(own, seconds)
    known = model.listener.hear(sounds, names, text="", words=())
    encoded = time.perf_counter()
    complete = set(names) - _predicted(model) | _spans_of_text(model)
    pace = {s: int(t.lengths[0]) / prompt.seconds for s, t in known.items()}
    total = prompt.seconds + seconds

    def tokens(stream: str) -> int:
        if _is_text(recipe, stream):
            return int(known[stream].lengths[0]) + math.ceil(8 * seconds)
        return max(math.ceil(pace.get(stream, 0.0) * total * 1.1), 8)

    made = produce(
        _lms(model),
        {s: t for s, t in known.items() if s in names},
        Wanted(total, tokens, ends=False),
        complete=complete,
        temperature=temperature,
        seed=seed,
    )
    generated = time.perf_counter()
    audio = model.decode(_plain(made), voice=voice).cut(0.0, total)
    timings = {
        "encode_seconds": encoded - started,
        "generate_seconds": generated - encoded,
        "vocode_seconds": time.perf_counter() - generated,
    }
    return Continuation(audio, prompt.seconds, sum(int(made[s].lengths[0]) for s in names), timings)


def answer(
    model: "Model",
    question: Audio,
    *,
    seconds: float,
    temperature: float | None,
    seed: int,
    voice: int | None,
    speak: bool = True,
) -> Reply:
    """An answer to a spoken question, of at most ``seconds``.

    :param question: [1, 1, N].
    :raises ConfigError: the recipe does not listen to anybody.
    """
    recipe, names = model.recipe, _streams(model)
    started = time.perf_counter()
    listened = [s for s in names if recipe.streams[s].channel == "user" or recipe.streams[s].text is not None]
    if not any(recipe.streams[s].channel == "user" for s in listened):
        raise ConfigError(f"Model {recipe.name!r} listens to nobody: it has no stream of a user. Use lalia continue.")
    duplex = is_duplex(recipe)
    sound = _padded(question, seconds) if duplex else question
    known = model.listener.hear({"user": sound}, listened)
    total = question.seconds + seconds if duplex else seconds

    def tokens(stream: str) -> int:
        return _TEXT_TOKENS if _is_text(recipe, stream) else math.ceil(_TOKENS_PER_SECOND * seconds)

    wanted = Wanted(total, tokens, ends=not duplex)
    made = produce(_lms(model), known, wanted, complete=listened, temperature=temperature, seed=seed)
    text = text_of(model, made)
    audio = None
    if speak and model.vocoder is not None:
        whole = model.listener.join(_plain(made), model.vocoder.reads)
        if all(int(whole[s].lengths[0]) for s in model.vocoder.reads):
            audio = model.decode(_plain(made), voice=voice)
            # What was said while the user spoke is not part of the answer.
            audio = audio.cut(question.seconds, seconds) if duplex else audio.cut(0.0, seconds)
    spent = time.perf_counter() - started
    timings = {"first_audio_ms": 1000 * spent, "total_ms": 1000 * spent}
    if audio is not None and audio.seconds:
        timings["rtf"] = spent / audio.seconds
    return Reply(text, audio, timings, _plain(made))


def text_of(model: "Model", made: Streams) -> str:
    """What is written in streams of one row; nothing where no stream is text of the model's own."""
    for name, stream in model.recipe.streams.items():
        if _is_text(model.recipe, name) and stream.channel is None and stream.text is None and name in made:
            tokenizer: Text = model.tokenizer(name)
            silent = {tokenizer.config.pad, tokenizer.config.end_of_pad, tokenizer.config.end}
            row = made[name].row(0)
            ids = [i for i in row.values[0, 0].tolist() if i not in silent]
            return tokenizer.decode(
                replace(row, values=torch.tensor(ids, dtype=torch.long)[None, None], lengths=torch.tensor([len(ids)]))
            )[0].strip()
    return ""


def _plain(made: Streams) -> Streams:
    return {s: t for s, t in made.items() if not s.endswith(HIDDEN_SUFFIX)}


def _padded(audio: Audio, seconds: float) -> Audio:
    """The recording with silence behind it."""
    return Audio(torch.nn.functional.pad(audio.samples, (0, round(seconds * audio.sample_rate))), audio.sample_rate)
