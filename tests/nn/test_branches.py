"""Rows as one sequence: each is what it is alone, whatever it shares with the row before."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.nn.branches import Branches
from lalia.nn.transformer import Transformer

SMALL = Transformer.Config(num_layers=2, num_heads=4, dim=32, ffn_dim=48, num_kv_heads=2)
LEARNED = Transformer.Config(
    num_layers=2, num_heads=4, dim=32, positions="learned", context=32, norm="layer", activation="gelu", bias=True
)


@st.composite
def rows(draw: st.DrawFn) -> list[list[int]]:
    """Rows of ids; many begin as the one before, and some are a part of it or the same."""
    found = [draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))]
    for _ in range(draw(st.integers(0, 5))):
        shared = draw(st.integers(0, len(found[-1])))
        own = draw(st.lists(st.integers(0, 9), min_size=0 if shared else 1, max_size=8))
        found.append(found[-1][:shared] + own)
    return found


def alike(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@given(rows())
def test_the_spans_of_a_row_are_its_steps(ids: list[list[int]]) -> None:
    shared = [0, *(alike(a, b) for a, b in itertools.pairwise(ids))]
    branches = Branches(tuple(map(len, ids)), tuple(shared))
    line = [i for row, n in zip(ids, shared, strict=True) for i in row[n:]]
    assert len(line) == branches.size == len(branches.positions())
    for row, spans in zip(ids, branches.spans(), strict=True):
        assert [i for start, stop in spans for i in line[start:stop]] == row
        places = [int(p) for start, stop in spans for p in branches.positions()[start:stop]]
        assert places == list(range(len(row)))


@pytest.mark.parametrize("config", [SMALL, LEARNED], ids=["rope", "learned"])
@settings(max_examples=25, deadline=None)
@given(ids=rows(), data=st.data())
def test_a_row_is_what_it_is_alone(config: Transformer.Config, ids: list[list[int]], data: st.DataObject) -> None:
    torch.manual_seed(0)
    network: Transformer = config.build().double().eval()
    table = torch.randn(10, 32, dtype=torch.float64)
    # They may share less than they could.
    most = [alike(a, b) for a, b in itertools.pairwise(ids)]
    shared = [0, *(data.draw(st.integers(0, n)) for n in most)]
    branches = Branches(tuple(map(len, ids)), tuple(shared))
    line = torch.cat([table[torch.tensor(row, dtype=torch.long)][n:] for row, n in zip(ids, shared, strict=True)])
    with torch.inference_mode():
        found = network(line[None], branches=branches)[0]
        for row, spans in zip(ids, branches.spans(), strict=True):
            alone = network(table[torch.tensor(row)][None])[0]
            assert torch.allclose(torch.cat([found[a:b] for a, b in spans]), alone, atol=1e-9)
