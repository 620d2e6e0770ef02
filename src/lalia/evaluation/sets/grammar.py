"""mini-grammar: a sentence against one of which a single word is wrong."""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from lalia.errors import ConfigError
from lalia.evaluation.pairs import Pair
from lalia.evaluation.sets.balance import choose, contrast
from lalia.evaluation.sets.lexicon import (
    ADJECTIVES,
    ANIMALS,
    COUNTED,
    IRREGULAR,
    IRREGULAR_NOUNS,
    LIKING,
    MASSES,
    MEN,
    NAMES,
    OBJECTS,
    PEOPLE,
    PLACES,
    PRONOUNS,
    REFLEXIVE,
    TRANSITIVE,
    VERBS,
    WOMEN,
)
from lalia.evaluation.sets.studio import Line, Studio
from lalia.evaluation.sets.writing import Writer

__all__ = ["Sentence", "make_grammar", "sentences"]


class Sentence(NamedTuple):
    """A sentence, and the same with one other word, which is wrong."""

    kind: str
    subtype: str
    right: str
    wrong: str


_Group = tuple[Sentence, ...]


def _of(kind: str, subtype: str, frame: str, right: str, wrong: str) -> Sentence:
    """:param frame: with a ``{}`` where the two words stand."""
    one, other = (frame.format(word) for word in (right, wrong))
    return Sentence(kind, subtype, one[0].upper() + one[1:], other[0].upper() + other[1:])


def _twins(kind: str, subtypes: str | tuple[str, str], frames: tuple[str, str], words: tuple[str, str]) -> _Group:
    """Two sentences in which either word is once right and once wrong: neither is a sign of anything."""
    one, other = (subtypes, subtypes) if isinstance(subtypes, str) else subtypes
    return _of(kind, one, frames[0], *words), _of(kind, other, frames[1], *words[::-1])


def _agreement(draw: random.Random) -> Iterator[_Group]:
    (boy, boys), (dog, dogs), verb = draw.choice(PEOPLE), draw.choice(ANIMALS), draw.choice(VERBS)
    forms = (verb.third, verb.base)
    adverb, place = draw.choice(("often", "never", "always", "sometimes")), draw.choice(PLACES)
    yield _twins("agreement", "simple", (f"the {boy} {adverb} {{}}.", f"the {boys} {adverb} {{}}."), forms)
    *auxiliary, form = draw.choice(
        (("is", "are", verb.going_on), ("was", "were", verb.going_on), ("has", "have", verb.participle))
    )
    pair = (f"the {boy} {{}} {form}.", f"the {boys} {{}} {form}.")
    yield _twins("agreement", "auxiliary", pair, (auxiliary[0], auxiliary[1]))
    frames = (f"the {boy} {place} the {dogs} {{}}.", f"the {boys} {place} the {dog} {{}}.")
    yield _twins("agreement", "distractor", frames, forms)
    like, likes = draw.choice(LIKING)
    frames = (f"the {boy} who {likes} the {dogs} {{}}.", f"the {boys} who {like} the {dog} {{}}.")
    yield _twins("agreement", "relative clause", frames, forms)


def _determiner(draw: random.Random) -> Iterator[_Group]:
    name, adjective = draw.choice(NAMES), draw.choice(ADJECTIVES)
    said = draw.choice(("wanted", "bought", "lost", "found"))
    for subtype, (this, these) in (("this and these", ("this", "these")), ("that and those", ("that", "those"))):
        frames = (f"{name} {said} {this} {{}}.", f"{name} {said} {these} {{}}.")
        yield _twins("determiner and noun", subtype, frames, draw.choice(OBJECTS))
    this, these = draw.choice((("this", "these"), ("that", "those")))
    frames = (f"{name} {said} {this} {adjective} {{}}.", f"{name} {said} {these} {adjective} {{}}.")
    yield _twins("determiner and noun", "adjective between", frames, draw.choice(OBJECTS))
    frames = (f"everybody saw {this} {{}}.", f"everybody saw {these} {{}}.")
    yield _twins("determiner and noun", "irregular noun", frames, draw.choice(IRREGULAR_NOUNS))


def _binding(draw: random.Random) -> Iterator[_Group]:
    man, woman, hurt, place = draw.choice(MEN), draw.choice(WOMEN), draw.choice(REFLEXIVE), draw.choice(PLACES)
    own = ("himself", "herself")
    yield _twins("binding", "gender", (f"the {man.one} {hurt} {{}}.", f"the {woman.one} {hurt} {{}}."), own)
    person, self = draw.choice(((man, own[0]), (woman, own[1])))
    frames = (f"the {person.one} {hurt} {{}}.", f"the {person.many} {hurt} {{}}.")
    yield _twins("binding", "number", frames, (self, "themselves"))
    frames = (
        f"the {man.one} {place} the {woman.one} {hurt} {{}}.",
        f"the {woman.one} {place} the {man.one} {hurt} {{}}.",
    )
    yield _twins("binding", "distractor", frames, own)


def _polarity(draw: random.Random) -> Iterator[_Group]:
    """What is never said without a negation near: the licensor is right, and another word in its place is wrong."""
    boy, verb = draw.choice(PEOPLE), draw.choice(VERBS)
    frame = f"{{}} {boy.one} has ever {verb.participle}."
    yield (_of("polarity", "no", frame, "no", draw.choice(("the", "some", "each", "this", "every", "one"))),)
    frame = f"{{}} the {boy.many} have ever {verb.participle} here."
    yield (_of("polarity", "only", frame, "only", draw.choice(("even", "also", "then", "now"))),)
    frame = f"the {boy.one} has {{}} ever {verb.participle}."
    yield (_of("polarity", "not", frame, "not", draw.choice(("now", "still", "just", "also", "then"))),)


def _filler_gap(draw: random.Random) -> Iterator[_Group]:
    who = f"{draw.choice(NAMES)} {draw.choice(('knows', 'heard', 'remembers', 'saw'))}"
    did = f"the {draw.choice(PEOPLE).one} {draw.choice(TRANSITIVE[1:4]).past}"
    frames = (f"{who} {{}} {did}.", f"{who} {{}} {did} the {draw.choice(OBJECTS).one}.")
    yield _twins("filler and gap", ("gap", "no gap"), frames, ("what", "that"))


def _irregular(draw: random.Random) -> Iterator[_Group]:
    boy, verb = draw.choice(PEOPLE).one, draw.choice(IRREGULAR)
    frames = (f"the {boy} {{}} {verb.object}.", f"the {boy} has {{}} {verb.object}.")
    yield _twins("irregular form", ("past", "participle"), frames, (verb.past, verb.participle))
    verb = draw.choice(IRREGULAR)
    frames = (f"the {boy} will {{}} {verb.object}.", f"the {boy} had {{}} {verb.object}.")
    yield _twins("irregular form", ("after will", "after had"), frames, (verb.base, verb.participle))


def _argument(draw: random.Random) -> Iterator[_Group]:
    boy, girl = (noun.one for noun in draw.sample(PEOPLE, 2))
    found, slept, place = draw.choice(TRANSITIVE), draw.choice(VERBS), draw.choice(PLACES)
    frames = (f"the {boy} {{}} the {girl}.", f"the {boy} {{}} {place} the {girl}.")
    yield _twins("argument structure", ("transitive", "intransitive"), frames, (found.past, slept.past))
    frames = (f"the {boy} was {{}} by the {girl}.", f"the {girl} has {{}} {place} the {boy}.")
    yield _twins("argument structure", ("passive", "perfect"), frames, (found.participle, slept.participle))


def _quantifier(draw: random.Random) -> Iterator[_Group]:
    boy, buy = draw.choice(PEOPLE).one, draw.choice(("buy", "find", "want", "need"))
    start = f"the {boy} did not {buy}"
    frames = (f"{start} {{}} {draw.choice(COUNTED)}.", f"{start} {{}} {draw.choice(MASSES)}.")
    yield _twins("quantifier", ("counted", "not counted"), frames, ("many", "much"))
    dog, place = draw.choice(ANIMALS), f"{draw.choice(('near', 'behind', 'inside'))} the house"
    frame, right, wrong = draw.choice(
        (
            (f"there is {{}} {dog.one} {place}.", ("another", "a", "one", "no"), ("every", "each")),
            (f"there are {{}} {dog.many} {place}.", ("many", "some", "two", "several"), ("most", "all", "both")),
        )
    )
    yield (_of("quantifier", "existential", frame, draw.choice(right), draw.choice(wrong)),)


def _case(draw: random.Random) -> Iterator[_Group]:
    teacher, thanked = draw.choice(PEOPLE).one, draw.choice(TRANSITIVE).past
    frames = (f"{{}} {thanked} the {teacher}.", f"the {teacher} {thanked} {{}}.")
    yield _twins("pronoun", ("subject", "object"), frames, draw.choice(PRONOUNS))


_PHENOMENA: tuple[Callable[[random.Random], Iterator[_Group]], ...] = (
    _agreement,
    _determiner,
    _binding,
    _polarity,
    _filler_gap,
    _irregular,
    _argument,
    _quantifier,
    _case,
)
"""After BLiMP (Warstadt et al. 2020, table 2), as far as one word can be exchanged for another."""

_IN_VAIN = 200
"""After so many sentences in a row that were there, there are no others."""

_OPTIONS = 4
"""Sentences that are no twins are drawn so often, to have a choice of what is longer."""


def sentences(per_subtype: int, seed: int) -> list[list[_Group]]:
    """For each place in the set, groups of sentences of which one is to be taken; none is there twice.

    :param per_subtype: sentences of each subtype, an even number.
    :raises ConfigError: there are not so many different ones.
    """
    found: list[list[_Group]] = []
    seen: set[str] = set()
    for n, phenomenon in enumerate(_PHENOMENA):
        draw = random.Random(f"{seed}:{n}")
        for part in range(len(list(phenomenon(draw)))):
            places: list[list[_Group]] = []
            enough = in_vain = 0
            while in_vain < _IN_VAIN:
                group = list(phenomenon(draw))[part]
                if any(s.right in seen for s in group):
                    in_vain += 1
                    continue
                in_vain = 0
                seen |= {s.right for s in group}
                options = _OPTIONS if len(group) == 1 else 1
                if places and len(places[-1]) < options:
                    places[-1].append(group)
                elif enough < per_subtype:
                    places.append([group])
                    enough += len([s for s in group if s.subtype == group[0].subtype])
                if enough >= per_subtype and len(places[-1]) == options:
                    break
            else:
                raise ConfigError(f"There are no {per_subtype} sentences of {group[0].kind}. Ask for fewer.")
            found += places
    return found


def make_grammar(studio: Studio, writer: Writer, size: int, seed: int) -> None:
    """As many sentences of each subtype, an even number, read by every voice.

    Most sentences are in twos that need each other's words: "The boy sings" and "The boys sing". A form is then as
    often right as wrong, and what is wrong is no shorter. Of the others those are taken with which this is so.

    :param size: about so many sentences.
    :raises ConfigError: there are not so many different ones.
    """
    subtypes = {(s.kind, s.subtype) for options in sentences(2, seed) for s in options[0]}
    per_subtype = max(2 * round(size / len(subtypes) / 2), 2)
    places = sentences(per_subtype, seed)
    drawn = [s for options in places for group in options for s in group]
    studio.prepare(Line(text, v) for s in drawn for text in (s.right, s.wrong) for v in studio.voices)

    def contrasts(group: _Group) -> np.ndarray:
        of_voice = [
            np.sum([contrast(studio.say(s.right, v), studio.say(s.wrong, v)) for s in group], axis=0)
            for v in studio.voices
        ]
        return np.concatenate(of_voice)

    chosen = choose([np.array([contrasts(group) for group in options]) for options in places])
    for place, (options, taken) in enumerate(zip(places, chosen, strict=True)):
        for letter, s in zip("ab", options[taken], strict=False):
            # Twins have one number.
            of = f"{place:03d}{letter}"
            for voice in studio.voices:
                writer.pairs.append(
                    Pair(
                        "grammar",
                        of,
                        writer.save(f"{of}.{voice}.right", studio.say(s.right, voice)),
                        writer.save(f"{of}.{voice}.wrong", studio.say(s.wrong, voice)),
                        voice=voice,
                        kind=s.kind,
                        subtype=s.subtype,
                        group=f"{place:03d}",
                        positive_text=s.right,
                        negative_text=s.wrong,
                    )
                )
