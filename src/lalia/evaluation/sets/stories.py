"""mini-stories: four sentences and their ending, against one that contradicts them or is of another story."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
import yaml

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.evaluation.pairs import Pair
from lalia.evaluation.sets.studio import RATE, Line, Studio
from lalia.evaluation.sets.writing import Writer

__all__ = ["Story", "elsewhere", "make_stories", "story_list"]


@dataclass(frozen=True)
class Story:
    """
    :param twin: the number of the story that begins alike and ends otherwise.
    :param who: the pronoun of its person, ``he`` or ``she``.
    """

    id: str
    twin: int
    who: str
    prompt: str
    ending: str


@cache
def story_list() -> tuple[Story, ...]:
    """All stories, twins beside one another."""
    groups = yaml.safe_load(Path(__file__).with_name("stories.yaml").read_text(encoding="utf-8"))
    return tuple(
        Story(f"{g:02d}{'ab'[way]}", 2 * g + 1 - way, group["who"], f"{group['begin']} {middle}", ending)
        for g, group in enumerate(groups)
        for way, (middle, ending) in enumerate(group["ways"])
    )


def elsewhere(stories: Sequence[Story], twins: Sequence[int], seed: int) -> dict[int, int]:
    """For each story another one whose ending it is given: about somebody of the same pronoun, and no twin.

    Stories exchange endings in twos (or three in a ring, where their number is odd), so that each ending is as often
    wrong as right.

    :param twins: the first of each two twins, as indices.
    """
    found: dict[int, int] = {}
    for who in ("he", "she"):
        order = [t for t in twins if stories[t].who == who]
        random.Random(f"{seed}:{who}").shuffle(order)
        rings = [order[i : i + 2] for i in range(0, len(order), 2)]
        if len(rings) > 1 and len(rings[-1]) == 1:
            rings[-2:] = [rings[-2] + rings[-1]]
        for ring in rings:
            for a, b in pairwise([*ring, ring[0]]):
                found |= {a: b, a + 1: b + 1}
    return found


def make_stories(studio: Studio, writer: Writer, size: int, seed: int) -> None:
    """Every voice reads every story; the prompt is one recording, and the members of a pair are it and an ending.

    Task ``spoken`` has the ending of the story's twin, ``topic`` that of another story; so each ending is once right
    and once wrong in each. The originals are sSC and tSC (Hassid et al., arXiv:2305.13009, section 4).

    :param size: stories, an even number; at least two twins for each of two pronouns are needed.
    :raises ConfigError: there are not so many, or too few.
    """
    stories = story_list()
    if size > len(stories) or size < 8 or size % 4:
        raise ConfigError(f"mini-stories was asked for {size} stories. Ask for 8, 12, 16, ... up to {len(stories)}.")
    twins: list[int] = []
    for who in ("he", "she"):
        of = [i for i in range(0, len(stories), 2) if stories[i].who == who]
        twins += random.Random(f"{seed}:{who}:chosen").sample(of, size // 4)
    other = elsewhere(stories, twins, seed)
    read = [text for i in other for text in (stories[i].prompt, stories[i].ending)]
    studio.prepare(Line(text, v) for text in read for v in studio.voices)
    for i in sorted(other):
        story = stories[i]
        for voice in studio.voices:
            prompt = studio.say(story.prompt, voice)
            members = {
                name: writer.save(f"{story.id}.{voice}.{name}", _joined(prompt, studio.say(stories[j].ending, voice)))
                for name, j in (("right", i), ("twin", story.twin), ("elsewhere", other[i]))
            }
            for task, name, j in (("spoken", "twin", story.twin), ("topic", "elsewhere", other[i])):
                writer.pairs.append(
                    Pair(
                        task,
                        story.id,
                        members["right"],
                        members[name],
                        voice=voice,
                        split=prompt.samples.shape[-1] / RATE,
                        prompt_text=story.prompt,
                        positive_text=story.ending,
                        negative_text=stories[j].ending,
                        group=story.id[:-1],
                    )
                )


def _joined(prompt: Audio, ending: Audio) -> Audio:
    """Both begin and end in silence, so that nothing has to fade."""
    return Audio(torch.cat([prompt.samples, ending.samples], dim=-1), RATE)
