"""Speech and text by turns, as one sequence that a model of both reads."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import torch

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.layouts import Switch
from lalia.lm import Sampling, SpeechLM, collect
from lalia.model.scoring import times_of_tokens
from lalia.recipe import Recipe
from lalia.streams import Streams, StreamSpec, TokenSequence, nothing, pad_batch
from lalia.tokenizers import Text

__all__ = ["Part", "go_on_by_turns", "one_after_another", "text_beside", "together"]

Part = Audio | str
"""A recording, or a text; a path is none."""


def text_beside(recipe: Recipe, lm: SpeechLM) -> str:
    """The stream of text that takes turns with speech in a language model.

    :raises ConfigError: there is none.
    """
    for name in lm.layout.switched if isinstance(lm.layout, Switch) else ():
        if isinstance(recipe.streams[name].tokenizer, Text.Config):
            return name
    raise ConfigError(f"Model {recipe.name!r} does not read speech and text by turns. Choose another model.")


def together(parts: Sequence[Part]) -> list[Part]:
    """Parts that take turns: texts that follow one another are parted by a space, recordings by nothing."""
    found: list[Part] = []
    for written, run in groupby(parts, key=lambda part: isinstance(part, str)):
        same = list(run)
        if written:
            found.append(" ".join(str(text).strip() for text in same))
            continue
        recordings = [part.mono() for part in same if isinstance(part, Audio)]
        rate = recordings[0].sample_rate
        found.append(Audio(torch.cat([a.to(rate).samples for a in recordings], dim=-1), rate))
    return found


def one_after_another(
    parts: Sequence[Part], encode: Callable[[Part], Streams], names: Sequence[str], specs: Mapping[str, StreamSpec]
) -> Streams:
    """Streams of one row, in which every token of a part comes before those of the next.

    :param encode: a part as streams of one row.
    :param names: all streams, those of which a part has nothing too.
    """
    pieces: dict[str, list[TokenSequence]] = {name: [] for name in names}
    for k, part in enumerate(together(parts)):
        streams = encode(part)
        begins = {n: times_of_tokens(t, specs[n], streams, specs) for n, t in streams.items()}
        last = max((float(t.max()) for t in begins.values() if len(t)), default=0.0)
        for name, tokens in streams.items():
            # A layout asks for the order alone, so a part may last one second.
            pieces[name].append(replace(tokens, durations=None, times=(k + begins[name] / (last + 1))[None]))
    return {name: _joined(found) if found else nothing(specs[name]) for name, found in pieces.items()}


def go_on_by_turns(
    lm: SpeechLM, known: Streams, opened: Collection[str], *, steps: int, sampling: Sampling | None, seed: int
) -> Streams:
    """What comes behind streams of one row, in spans of one kind alone, without an end.

    :param opened: the streams of that span.
    :param steps: of the language model; one of them opens the span where another was open.
    :param sampling: of the streams that go on; the recipe's when not given.
    """
    layout = lm.layout
    assert isinstance(layout, Switch)
    (own,) = (i for i in range(len(layout.switched)) if layout.switched[i] in opened)
    # Neither an end nor another span may come.
    sampler = lm.config.sampler.ban(
        **{layout.marker: tuple((i, i + 1) for i in range(len(layout.switched) + 1) if i != own)}
    )
    if sampling is not None:
        sampler = replace(sampler, streams={**sampler.streams, **dict.fromkeys(opened, sampling)})
    done = [s for s in lm.specs if s not in opened and s not in layout.markers]
    return collect(lm.generate(known, sampler=sampler, complete=done, max_steps=steps, seeds=[seed]))


def _joined(pieces: Sequence[TokenSequence]) -> TokenSequence:
    values = torch.cat([p.values for p in pieces], dim=2 if pieces[0].discrete else 1)
    times = torch.cat([p.times for p in pieces if p.times is not None], dim=1)
    return pad_batch([TokenSequence(values, torch.tensor([times.shape[1]]), times=times)])
