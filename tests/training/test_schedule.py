import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalia.training.schedule import Schedule, learning_rate_scale

SCHEDULES = get_args(Schedule)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_is_linear_and_ends_at_the_peak(schedule: Schedule) -> None:
    scales = [learning_rate_scale(s, schedule=schedule, warmup_steps=4, max_steps=100) for s in range(4)]
    assert scales == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("schedule", "middle", "end"),
    [("cosine", 0.55, 0.1), ("linear", 0.55, 0.1), ("constant", 1.0, 1.0), ("inverse_sqrt", 0.4256, 0.3147)],
)
def test_shape_after_warm_up(schedule: Schedule, middle: float, end: float) -> None:
    def scale(step: int) -> float:
        return learning_rate_scale(step, schedule=schedule, warmup_steps=10, max_steps=100, min_ratio=0.1)

    assert scale(10) == pytest.approx(1.0, abs=0.05)
    assert scale(55) == pytest.approx(middle if schedule != "inverse_sqrt" else math.sqrt(10 / 56), abs=1e-3)
    assert scale(100) == pytest.approx(end, abs=1e-3)


def test_cosine_is_above_the_line_first_and_below_it_later() -> None:
    def both(step: int) -> tuple[float, float]:
        cosine = learning_rate_scale(step, schedule="cosine", max_steps=100)
        return cosine, learning_rate_scale(step, schedule="linear", max_steps=100)

    assert both(25)[0] > both(25)[1]
    assert both(75)[0] < both(75)[1]


@given(
    schedule=st.sampled_from(SCHEDULES),
    warmup_steps=st.integers(0, 50),
    max_steps=st.integers(1, 200),
    min_ratio=st.floats(0, 1),
    step=st.integers(0, 1000),
)
def test_never_rises_after_warm_up_and_stays_within_bounds(
    schedule: Schedule, warmup_steps: int, max_steps: int, min_ratio: float, step: int
) -> None:
    def scale(step: int) -> float:
        return learning_rate_scale(
            step, schedule=schedule, warmup_steps=warmup_steps, max_steps=max_steps, min_ratio=min_ratio
        )

    assert 0 <= scale(step) <= 1
    if step >= warmup_steps:
        assert scale(step) >= min_ratio
        assert scale(step + 1) <= scale(step)
