import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.data import Word
from lalia.errors import ConfigError, DataError
from lalia.evaluation.representation import Representation, unit_phones
from lalia.evaluation.representation.unit_phones import phone_of_frames


def naive(pairs):
    """The definitions over frames, each a phone and a unit."""
    n = len(pairs)
    joint = Counter(pairs)
    phones, units = Counter(p for p, _ in pairs), Counter(u for _, u in pairs)
    purity = sum(max(joint[p, u] for p in phones) for u in units) / n
    cluster = sum(max(joint[p, u] for u in units) for p in phones) / n
    information = sum(c / n * math.log2(c * n / phones[p] / units[u]) for (p, u), c in joint.items())
    entropy = -sum(c / n * math.log2(c / n) for c in phones.values())
    return purity, cluster, information, information / entropy if len(phones) > 1 else math.nan


def runs(labels, rate=50.0):
    return [Word(label, i / rate, (i + 1) / rate) for i, label in enumerate(labels)]


@given(st.lists(st.lists(st.tuples(st.sampled_from("aet"), st.integers(0, 4)), min_size=1, max_size=20), min_size=1))
@settings(max_examples=60, deadline=None)
def test_as_defined(recordings):
    units = Representation({str(i): torch.tensor([u for _, u in r]) for i, r in enumerate(recordings)}, 50.0)
    found = unit_phones(units, {str(i): runs([p for p, _ in r]) for i, r in enumerate(recordings)})
    values = found.phone_purity, found.cluster_purity, found.mutual_information, found.pnmi
    expected = naive([pair for r in recordings for pair in r])
    assert [v.value for v in values] == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert found.frames == sum(map(len, recordings))
    assert found.phone_purity.n == len(recordings)


@given(st.permutations(range(5)))
def test_names_of_units_do_not_matter(names):
    rng = np.random.default_rng(0)
    codes, labels = rng.integers(0, 5, (6, 30)), rng.choice(list("aet"), (6, 30))
    phones = {str(i): runs(row) for i, row in enumerate(labels)}

    def measured(codes):
        return unit_phones(Representation({str(i): torch.from_numpy(c) for i, c in enumerate(codes)}, 50.0), phones)

    first, second = measured(codes), measured(np.array(names)[codes])
    for name in ("phone_purity", "cluster_purity", "mutual_information", "pnmi"):
        a, b = getattr(first, name), getattr(second, name)
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))
        assert a.low < a.value < a.high


def test_worked_example():
    """Units that are phones, but for one frame of eight."""
    units = Representation({"f": torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])}, 50.0)
    found = unit_phones(units, {"f": [Word("a", 0, 0.08), Word("t", 0.08, 0.16)]})
    assert found.phone_purity.value == 7 / 8
    assert found.cluster_purity.value == 7 / 8
    assert (found.frames, found.phones, found.units) == (8, 2, 2)
    expected = 3 / 8 * math.log2(2) + 1 / 8 * math.log2((1 / 8) / (1 / 2 * 5 / 8)) + 1 / 2 * math.log2(8 / 5)
    assert found.pnmi.value == pytest.approx(expected)
    assert math.isnan(found.pnmi.low)  # one recording says nothing of others


def test_frames_by_their_centres():
    phones = [Word("a", 0.01, 0.03), Word("t", 0.03, 0.05), Word("s", 0.06, 9.0)]
    assert phone_of_frames(phones, 5, 50.0) == ["a", "t", None, "s", "s"]
    assert phone_of_frames([], 2, 50.0) == [None, None]


def test_what_is_left_out():
    units = Representation({"f": torch.tensor([0, 1, 2, 3])}, 50.0)
    found = unit_phones(units, {"f": runs(["pau", "a", "t"])}, ignore=["pau"])
    assert (found.frames, found.phones, found.units) == (2, 2, 2)


def test_refusals():
    units = Representation({"f": torch.tensor([0, 1])}, 50.0)
    with pytest.raises(DataError, match="There is no alignment of 'f'"):
        unit_phones(units, {})
    with pytest.raises(DataError, match="No frame has a phone"):
        unit_phones(units, {"f": []})
    with pytest.raises(DataError, match="No frame has a phone"):
        unit_phones(Representation({}, 50.0), {})
    with pytest.raises(DataError, match=r"The phone 't' from 0.01 to 0.04 s begins before 0.02 s"):
        unit_phones(units, {"f": [Word("a", 0, 0.02), Word("t", 0.01, 0.04)]})
    with pytest.raises(DataError, match="The phone 'a'"):
        unit_phones(units, {"f": [Word("a", math.nan, 0.02)]})
    with pytest.raises(ConfigError, match="Features have no purity"):
        unit_phones(Representation({"f": torch.zeros(2, 2)}, 50.0), {"f": []})
