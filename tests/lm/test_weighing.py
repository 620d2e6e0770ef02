"""Weights of cells: the weighted mean of naive losses, for every head that has a loss for each cell."""

from collections.abc import Mapping
from contextlib import nullcontext
from itertools import product

import pytest
import torch

from lalia.errors import ConfigError
from lalia.layouts import Flat, Layout, Parallel
from lalia.lm import (
    Depth,
    DepthTransformer,
    EdgeUnits,
    Head,
    Linear,
    Lookup,
    Project,
    Regress,
    SpeechLM,
    State,
    Transformer,
    Weight,
)
from lalia.streams import Continuous, Discrete, Streams, StreamSpec, TokenSequence
from lalia.training.gradients import mean_losses
from lalia.training.objectives.next_token import NextToken

SPECS = {
    "text": StreamSpec(kind=Discrete(9), frame_rate=12.5),
    "codes": StreamSpec(kind=Discrete(6, num_codebooks=3), frame_rate=12.5),
    "runs": StreamSpec(kind=Discrete(4), frame_rate=50.0),
    "mel": StreamSpec(kind=Continuous(5), frame_rate=50.0),
}
BESIDE = Parallel(("text", "codes"), delays=(0, 0, 1, 2))
NETWORK = DepthTransformer.Config(num_layers=1, num_heads=2, dim=8)
BOOKS = Weight(0.5, codebooks=(100.0, 1.0, 0.0), ids=((2, 0.25), (5, 3.0)))
PADS = Weight(ids=((3, 0.5), (9, 2.0)))

Case = tuple[Layout, Mapping[str, Head.Config], Mapping[str, Lookup], dict[str, Weight]]
CASES: dict[str, Case] = {
    "linear": (BESIDE, {"codes": Linear.Config(), "text": Linear.Config()}, {}, {"codes": BOOKS, "text": PADS}),
    "joint": (
        BESIDE,
        {"codes": Linear.Config(tied=True), "text": Linear.Config(tied=True)},
        {"codes": Lookup("all"), "text": Lookup("all")},
        {"codes": BOOKS, "text": PADS},
    ),
    "depth": (BESIDE, {"codes": Depth.Config(NETWORK, first="text"), "text": Linear.Config()}, {}, {"codes": BOOKS}),
    "edges": (Flat("runs"), {"runs": EdgeUnits.Config()}, {}, {"runs": Weight(ids=((1, 5.0), (3, 0.0)))}),
    "states": (Flat("runs"), {"runs": State.Config(("a", "b", "c", "d"))}, {}, {"runs": Weight(ids=((1, 5.0),))}),
}


def build(layout: Layout, heads: Mapping[str, Head.Config], inputs: Mapping[str, Lookup | Project.Config]) -> SpeechLM:
    torch.manual_seed(0)
    lm: SpeechLM = SpeechLM.Config(
        layout=layout,
        backbone=Transformer.Config(num_layers=1, num_heads=2, dim=16, ffn_dim=32),
        inputs={s: Lookup() for s in layout.streams} | dict(inputs),
        heads=heads,
    ).build(SPECS)
    with torch.no_grad():
        for p in lm.parameters():
            if p.ndim > 1:
                p.mul_(8.0)
    return lm


def streams_of(layout: Layout, lengths: list[int]) -> Streams:
    generator = torch.Generator().manual_seed(1)
    out: Streams = {}
    for name in layout.streams:
        kind = SPECS[name].kind
        assert isinstance(kind, Discrete)
        shape = (len(lengths), kind.num_codebooks, max(lengths))
        # Of few ids: those that weigh come often, and there are runs.
        values = torch.randint(kind.codebook_size, shape, generator=generator).sort(dim=-1).values
        out[name] = TokenSequence(values, torch.tensor(lengths))
    return out


def naive(lm: SpeechLM, streams: Streams, weights: Mapping[str, Weight]) -> dict[str, torch.Tensor]:
    """Each weighted mean, cell by cell."""
    grid, out = lm.pack(streams), {}
    for stream, nll in lm.nll(grid).items():
        weight, total, count = weights.get(stream, Weight()), nll.new_zeros(()), 0.0
        ids, there = grid.values[stream], lm.cell_head(stream).cells(grid)
        for b, k, s in product(*map(range, ids.shape)):
            if there[b, k, s]:
                w = 1.0 if weight.codebooks is None else weight.codebooks[k]
                w *= dict(weight.ids).get(int(ids[b, k, s]), 1.0)
                total, count = total + w * nll[b, k, s], count + w
        out[stream] = total / count
    return out


@pytest.mark.parametrize("name", CASES)
def test_the_weighted_mean_and_its_gradient(name: str) -> None:
    layout, heads, inputs, weights = CASES[name]
    lm = build(layout, heads, inputs)
    streams = streams_of(layout, [7, 4])
    wanted = naive(lm, streams, weights)
    given = {stream: weights.get(stream, 1.0) for stream in heads}
    loss = lm.loss(lm.pack(streams), given)
    plain = lm.loss(lm.pack(streams))
    for stream, mean in wanted.items():
        torch.testing.assert_close(loss[stream], mean)
        assert (abs(float((loss[stream] - plain[stream]).detach())) > 1e-3) == (stream in weights)
    others = sum(loss[term] for term in lm.terms if term not in wanted)
    torch.testing.assert_close(loss["total"], others + sum(_of(weights, s) * mean for s, mean in wanted.items()))
    parameters = list(lm.parameters())
    naive_total = torch.stack([_of(weights, s) * mean for s, mean in wanted.items()]).sum()
    total = torch.stack([_of(weights, s) * loss[s] for s in wanted]).sum()
    wanted_grads = torch.autograd.grad(naive_total, parameters, retain_graph=True, allow_unused=True)
    grads = torch.autograd.grad(total, parameters, allow_unused=True)
    assert sum(g is not None for g in grads) > 3
    for ours, theirs in zip(grads, wanted_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def _of(weights: Mapping[str, Weight], stream: str) -> float:
    return weights.get(stream, Weight()).stream


@pytest.mark.parametrize("name", ["linear", "depth"])
def test_a_batch_in_parts_has_the_mean_of_the_whole(name: str) -> None:
    """Weights, not cells, are what the parts of a batch are added up by."""
    layout, heads, inputs, weights = CASES[name]
    lm = build(layout, heads, inputs).eval()
    streams, objective = streams_of(layout, [7, 4, 5]), NextToken(lm, weights)
    parts = [{"grid": lm.pack({s: t.row(b) for s, t in streams.items()})} for b in range(3)]
    with torch.no_grad():
        apart = mean_losses(objective, parts, torch.device("cpu"), nullcontext)
        wanted = naive(lm, streams, weights)
    for stream, mean in wanted.items():
        assert apart[stream] == pytest.approx(float(mean), rel=1e-5)
    assert apart["loss"] == pytest.approx(sum(_of(weights, s) * apart[s] for s in wanted), rel=1e-6)


def test_how_weights_compare_matters_and_not_how_large_they_are() -> None:
    layout, heads, inputs, _ = CASES["linear"]
    lm = build(layout, heads, inputs)
    grid = lm.pack(streams_of(layout, [6]))
    with torch.no_grad():
        plain, same, small = (
            float(lm.loss(grid, {"codes": w})["codes"])
            for w in (1.0, Weight(codebooks=(1.0, 1.0, 1.0)), Weight(codebooks=(1e-3, 1e-3, 1e-3)))
        )
    assert same == pytest.approx(plain, rel=1e-6)
    assert small == pytest.approx(plain, rel=1e-5)


def test_what_weighs_nothing_teaches_nothing() -> None:
    layout, heads, inputs, _ = CASES["linear"]
    lm = build(layout, heads, inputs)
    loss = lm.loss(lm.pack(streams_of(layout, [6])), {"codes": Weight(codebooks=(0.0, 0.0, 0.0)), "text": 0.0})
    assert float(loss["total"].detach()) == 0
    loss["total"].backward()
    assert all(p.grad is None or not p.grad.any() for p in lm.parameters())


def test_cells_of_features_have_no_weights() -> None:
    lm = build(Flat("mel"), {"mel": Regress.Config()}, {"mel": Project.Config()})
    grid = lm.pack({"mel": TokenSequence(torch.randn(1, 4, 5), torch.tensor([4]))})
    with pytest.raises(ConfigError, match=r"Regress has no loss for each cell of 'mel'. Give the stream one weight"):
        lm.loss(grid, {"mel": Weight(codebooks=(2.0,))})
    assert float(lm.loss(grid, {"mel": Weight(0.0), "mel.stop": 0.0})["total"].detach()) == 0
