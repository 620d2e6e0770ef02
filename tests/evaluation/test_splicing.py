from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.data import Word
from lalia.errors import DataError
from lalia.evaluation.energy import mean_power, speech_span
from lalia.evaluation.splicing import cut_points, rejoin, reordered_words, reversed_audio, shuffled

RATE = 16_000


def noise(n: int, seed: int = 0) -> Audio:
    return Audio(0.1 * torch.randn(n, generator=torch.Generator().manual_seed(seed)), RATE)


def test_reversing_twice_is_nothing() -> None:
    audio = noise(1000)
    assert torch.equal(reversed_audio(reversed_audio(audio)).samples, audio.samples)
    assert reversed_audio(audio).samples[0, 0, 0] == audio.samples[0, 0, -1]


@given(st.integers(2, 30), st.integers(0, 5), st.text(max_size=5))
def test_an_order_is_another_one_and_always_the_same(n: int, seed: int, key: str) -> None:
    order = shuffled(n, seed, key)
    assert sorted(order) == list(range(n))
    assert order != tuple(range(n))
    assert order == shuffled(n, seed, key)


def test_orders_follow_seed_and_key() -> None:
    assert len({shuffled(20, seed, key) for seed in range(3) for key in "abc"}) == 9


@given(st.data())
def test_both_members_have_the_same_parts(data: st.DataObject) -> None:
    n = data.draw(st.integers(400, 4000))
    points = sorted(data.draw(st.sets(st.integers(0, n), min_size=3, max_size=8)))
    audio, order = noise(n), data.draw(st.permutations(range(len(points) - 1)))
    positive, negative = rejoin(audio, points, range(len(points) - 1)), rejoin(audio, points, order)
    assert positive.samples.shape == negative.samples.shape == audio.samples.shape
    x, y = positive.samples[0, 0], negative.samples[0, 0]
    # Sample for sample: part i of the positive is where the order puts it in the negative.
    parts = [x[a:b] for a, b in pairwise(points)]
    assert torch.equal(y, torch.cat([x[: points[0]], *(parts[i] for i in order), x[points[-1] :]]))


def test_only_the_joins_are_touched() -> None:
    audio, points = noise(RATE), [2000, 6000, 9000, 15000]
    positive = rejoin(audio, points, range(3))
    changed = (positive.samples != audio.samples)[0, 0].nonzero()[:, 0]
    assert len(changed)
    for i in changed.tolist():
        assert min(abs(i - p) for p in points) <= 80
    # A part fades to (nearly) nothing on both sides of a join: no step gives it away.
    for p in points:
        assert float(positive.samples[0, 0, p - 1 : p + 1].abs().max()) < 0.01


def test_cuts_lie_in_the_silences(tone_speech) -> None:
    audio, words = tone_speech([500, 700, 900, 1100])
    # Times as wrong as a recogniser's.
    wrong = [Word(w.text, max(w.start + d, 0), w.end + d) for w, d in zip(words, (0.0, 0.05, -0.04, 0.03), strict=True)]
    points = cut_points(audio, wrong)
    assert len(points) == 5
    for k, point in enumerate(points[1:-1], start=1):
        assert 0.35 * k - 0.05 <= point / RATE <= 0.35 * k
    power = mean_power(audio)
    assert all(power[p] < 1e-6 for p in points[1:-1])
    assert points[0] == speech_span(power)[0]
    assert points[-1] == speech_span(power)[1]


def test_silence_around_the_speech_stays(tone_speech) -> None:
    audio, words = tone_speech([500, 900])
    quiet = torch.zeros(4000)
    padded = Audio(torch.cat([quiet, audio.samples[0, 0], quiet]), RATE)
    later = [Word(w.text, w.start + 0.25, w.end + 0.25) for w in words]
    positive, negative = reordered_words(padded, later, seed=0)
    for member in (positive, negative):
        assert not member.samples[0, 0, :3800].any()
        assert not member.samples[0, 0, -4000:].any()
    assert not torch.equal(positive.samples, negative.samples)


def test_depth_leaves_the_pauses(tone_speech) -> None:
    audio, words = tone_speech([500, 700, 900, 1100])
    samples = audio.samples.clone()
    first_gap = round(0.30 * RATE), round(0.35 * RATE)
    samples[0, 0, first_gap[0] : first_gap[1]] = 0.1 * torch.sin(torch.arange(first_gap[1] - first_gap[0]) * 0.3)
    voiced = Audio(samples, RATE)
    assert len(cut_points(voiced, words)) == 5
    assert len(cut_points(voiced, words, depth=20)) == 4


def test_parts_are_not_shorter_than_a_syllable(tone_speech) -> None:
    audio, _ = tone_speech([500, 700])
    crowded = [Word("x", 0.02 * i, 0.02 * (i + 1)) for i in range(30)]
    points = cut_points(audio, crowded)
    assert all(b - a >= round(0.08 * RATE) for a, b in pairwise(points))


@pytest.mark.parametrize("words", [[], [Word("alone", 0.0, 0.3)]])
def test_one_part_has_no_other_order(words: list[Word], tone_speech) -> None:
    audio, _ = tone_speech([500])
    with pytest.raises(DataError, match=r"u1 can be cut into 1 parts only"):
        reordered_words(audio, words, seed=0, key="u1")


def test_silence_cannot_be_cut() -> None:
    audio = Audio(torch.zeros(RATE), RATE)
    assert cut_points(audio, [Word("a", 0, 0.5), Word("b", 0.5, 1.0)]) == []


def test_power_is_the_mean_square_around() -> None:
    audio = noise(2000)
    x, power = audio.samples[0, 0].double(), mean_power(audio)
    for i in (0, 7, 1000, 1999):
        around = x[max(i - 160, 0) : i + 160]
        assert power[i] == pytest.approx(float((around**2).mean()), rel=1e-6)


def test_on_real_speech_words_change_places(recordings: list[Path]) -> None:
    audio = Audio.load(recordings[0], sample_rate=RATE, seconds=6.0)
    words = [Word(str(i), 0.4 * i, 0.4 * (i + 1)) for i in range(15)]
    positive, negative = reordered_words(audio, words, seed=1, key="x")
    assert positive.samples.shape == negative.samples.shape == audio.samples.shape
    assert torch.equal(positive.samples.abs().sort().values, negative.samples.abs().sort().values)
    assert not torch.equal(positive.samples, negative.samples)
    # The positive is still the recording but for its joins.
    assert float((positive.samples != audio.samples).float().mean()) < 0.05
