"""What is measured of how something is said, on sounds of which it is known."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.encoders.delivery import MEASURES, Delivery, DeliveryMeter

RATE = 16000
QUESTION = Path(__file__).parents[2] / "examples/question.flac"


@pytest.fixture(scope="module")
def meter() -> DeliveryMeter:
    return DeliveryMeter()


def sound(samples: torch.Tensor) -> Audio:
    return Audio(samples[None, None].float(), RATE)


def speech(f0: float = 150.0, seconds: float = 2.0, *, breath: float = 0.0) -> torch.Tensor:
    """Syllables, four a second, of a voice of many harmonics or of breath, between two stretches of silence."""
    t = torch.arange(round(seconds * RATE)) / RATE
    voice = sum(torch.sin(2 * math.pi * h * f0 * t + h * h) / h for h in range(1, 20) if h * f0 < 5000)
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0))
    syllables = 0.02 + (math.pi * 4 * t).sin().square()
    said = 0.1 * syllables * ((1 - breath) * voice + breath * noise)
    return torch.cat([torch.zeros(RATE // 2), said, torch.zeros(RATE // 2)])


def measured(meter: DeliveryMeter, samples: torch.Tensor) -> Delivery:
    (found,) = meter.measure(sound(samples))
    return found


def test_it_tells_level_pitch_and_time(meter: DeliveryMeter) -> None:
    said = speech(200.0, 3.0)
    found = measured(meter, said)
    inside = said[RATE // 2 : -RATE // 2]
    assert found.level == pytest.approx(10 * math.log10(float(inside.square().mean())), abs=1.0)
    assert found.pitch == pytest.approx(12, abs=0.2)
    assert math.exp(found.rate) == pytest.approx(3.0, abs=0.2)
    assert found.voicing > 0.9


@settings(max_examples=10, deadline=None)
@given(gain=st.floats(-30.0, 12.0))
def test_the_level_changes_with_the_gain_and_nothing_else(meter: DeliveryMeter, gain: float) -> None:
    said = speech()
    one, other = measured(meter, said), measured(meter, said * 10 ** (gain / 20))
    assert other.level - one.level == pytest.approx(gain, abs=0.01)
    for name in MEASURES[1:]:
        assert getattr(other, name) == pytest.approx(getattr(one, name), abs=1e-3), name


@settings(max_examples=8, deadline=None)
@given(before=st.floats(0.0, 1.0), behind=st.floats(0.0, 1.0))
def test_silence_around_it_changes_nothing(meter: DeliveryMeter, before: float, behind: float) -> None:
    said = speech()
    around = torch.cat([torch.zeros(round(before * RATE)), said, torch.zeros(round(behind * RATE))])
    one, other = measured(meter, said), measured(meter, around)
    assert other.rate == pytest.approx(one.rate, abs=0.08)
    assert other.level == pytest.approx(one.level, abs=0.5)


def test_breath_has_no_voice(meter: DeliveryMeter) -> None:
    voiced, whispered = measured(meter, speech()), measured(meter, speech(breath=1.0))
    assert whispered.voicing < 0.2
    assert voiced.voicing > 0.9
    assert whispered.harmonicity < voiced.harmonicity - 0.2
    assert math.isnan(whispered.pitch)


def test_in_noise_breath_is_not_told(meter: DeliveryMeter) -> None:
    said = speech()
    noise = 0.05 * torch.randn(len(said), generator=torch.Generator().manual_seed(1))
    found = measured(meter, said + noise)
    assert math.isnan(found.voicing)
    assert math.isnan(found.harmonicity)
    assert found.pitch == pytest.approx(12 * math.log2(1.5), abs=0.3)


@pytest.mark.parametrize(
    "samples",
    [
        torch.zeros(0),
        torch.zeros(1),
        torch.zeros(RATE),
        torch.full((RATE,), math.nan),
        torch.full((RATE,), math.inf),
        torch.full((RATE,), 0.5),
        speech()[RATE // 2 : RATE // 2 + 1600],
        1e-5 * torch.randn(RATE, generator=torch.Generator().manual_seed(2)),
    ],
    ids=["nothing", "one sample", "silence", "NaN", "infinity", "an offset", "a tenth of a second", "hiss"],
)
def test_of_what_is_no_speech_nothing_is_told(meter: DeliveryMeter, samples: torch.Tensor) -> None:
    found = measured(meter, samples)
    assert all(math.isnan(getattr(found, name)) for name in MEASURES)


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 4 * RATE), max_size=6))
def test_a_stream_is_measured_as_the_whole(meter: DeliveryMeter, cuts: list[int]) -> None:
    said = Audio.load(QUESTION, mono=True, sample_rate=RATE).samples[0, 0]
    state = meter.init_state(1)
    for a, b in pairwise([0, *sorted(cuts), len(said)]):
        (early,) = meter.measure(sound(said[a:b]), state)
        assert math.isnan(early.level)
    (streamed,) = meter.measure(sound(said[:0]), state, final=True)
    assert streamed == measured(meter, said)
    # The state is that of a new stream.
    (again,) = meter.measure(sound(said), state, final=True)
    assert again == streamed


def test_rows_are_measured_as_if_alone_and_leave_a_stream(meter: DeliveryMeter) -> None:
    said = speech(220.0)
    rows = torch.stack([said, 0.1 * said.flip(0)])[:, None]
    state = meter.init_state(2)
    meter.measure(Audio(rows, RATE), state)
    state = state.select(torch.tensor([1, 0]))
    state = state.reset(meter.init_state(2), torch.tensor([False, True]))
    first, second = meter.measure(Audio(rows[:, :, :0], RATE), state, final=True)
    assert first == measured(meter, rows[1, 0])
    assert math.isnan(second.level)


def test_rate_is_relative_to_what_so_many_letters_take() -> None:
    said = Delivery(rate=math.log(2.0))
    usual = said.paced(28)
    assert usual.rate == pytest.approx(0, abs=0.05)
    assert Delivery(rate=math.log(4.0)).paced(28).rate == pytest.approx(usual.rate - math.log(2))
    assert math.isnan(said.paced(0).rate)
