"""The SpeechLM in training and scoring: each number against its definition."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.errors import ConfigError
from lalia.layouts import Chunks, Concat, Flat, Grid, Layout, Merge, Parallel
from lalia.lm import HF, Linear, Lookup, Project, SpeechLM, Transformer, heads
from lalia.streams import Continuous, Discrete, Streams, StreamSpec, TokenSequence

Build = Callable[..., SpeechLM]
Inputs = Mapping[str, Lookup | Project.Config]

SPECS = {
    "units": StreamSpec(kind=Discrete(30), frame_rate=25.0),
    "other": StreamSpec(kind=Discrete(30), frame_rate=25.0),
    "text": StreamSpec(kind=Discrete(12, end=5), frame_rate=None),
    "codes": StreamSpec(kind=Discrete(9, num_codebooks=3), frame_rate=25.0),
    "heard": StreamSpec(kind=Continuous(6), frame_rate=50.0),
}

CASES: dict[str, tuple[Layout, Inputs, tuple[str, ...]]] = {
    "flat": (Flat("units"), {"units": Lookup()}, ("units",)),
    "flat-codebooks": (Flat("codes"), {"codes": Lookup()}, ("codes",)),
    "late": (Parallel(("units",), delays=(2,)), {"units": Lookup()}, ("units",)),
    "parallel": (
        Parallel(("units", "codes"), delays=(0, 1, 2, 2)),
        {"units": Lookup(), "codes": Lookup()},
        ("units", "codes"),
    ),
    "absent": (
        Parallel(("units", "codes"), delays=(0, 1, 2, 2)),
        {"units": Lookup(), "codes": Lookup(absent=True)},
        ("units", "codes"),
    ),
    "joint": (Chunks({"text": 2, "units": 3}), {"text": Lookup("all"), "units": Lookup("all")}, ("text", "units")),
    "channels": (
        Parallel(("units", "other")),
        {"units": Lookup(), "other": Lookup(tied_to="units")},
        ("units", "other"),
    ),
    "answer": (
        Concat((Flat("heard"), Flat("text"), Parallel(("codes",), delays=(0, 1, 1)))),
        {"heard": Project.Config(hidden=16, norm=True), "text": Lookup(), "codes": Lookup()},
        ("text", "codes"),
    ),
    "unheard": (Parallel(("units", "other")), {"units": Lookup()}, ("units", "other")),
}


def streams_of(layout: Layout, lengths: list[int], seed: int = 0) -> Streams:
    generator = torch.Generator().manual_seed(seed)
    out: Streams = {}
    for i, name in enumerate(layout.streams):
        kind, rows = SPECS[name].kind, [max(n - i, 0) for n in lengths]
        if isinstance(kind, Discrete):
            shape = (len(rows), kind.num_codebooks, max(rows))
            values = torch.randint(kind.codebook_size, shape, generator=generator)
        else:
            values = torch.randn((len(rows), max(rows), kind.dim), generator=generator)
        out[name] = TokenSequence(values, torch.tensor(rows))
    return out


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, build: Build) -> SpeechLM:
    layout, inputs, predicted = CASES[request.param]
    return build(layout, SPECS, inputs, heads=predicted)


def naive_embedding(lm: SpeechLM, grid: Grid, b: int, s: int) -> Tensor:
    """The sum over the cells of a step, one by one."""
    total = torch.zeros(lm.backbone.dim, dtype=torch.float64)
    for name in lm.config.inputs:
        for k in range(grid.positions[name].shape[1]):
            if int(grid.positions[name][b, k, s]) >= 0:
                if name in lm.inputs:
                    total = total + lm.inputs[name](grid.values[name][b, s])
                else:
                    owner = lm.wiring.rows_of(name)
                    weight = lm.tables[lm.wiring.table_of(name)].embedding.weight
                    total = total + weight[first_row(lm, owner, k) + int(grid.values[name][b, k, s])]
            elif name in lm.absent:
                total = total + lm.absent[name][k]
    return total


def first_row(lm: SpeechLM, stream: str, codebook: int) -> int:
    """Where a codebook's ids begin in its table: streams by name, codebooks in order."""
    row = 0
    for name in sorted(lm.wiring.tables()[lm.wiring.table_of(stream)]):
        for k in range(lm.wiring.discrete(name).num_codebooks):
            if (name, k) == (stream, codebook):
                return row
            row += lm.wiring.discrete(name).num_ids
    raise AssertionError(stream)


def test_a_step_enters_as_the_sum_of_its_cells(case: SpeechLM) -> None:
    grid = case.pack(streams_of(case.layout, [6, 3]))
    with torch.no_grad():
        x = case.embed(grid)
        for b in range(2):
            for s in range(int(grid.lengths[b])):
                assert torch.allclose(x[b, s], naive_embedding(case, grid, b, s))


def test_a_step_may_enter_as_the_mean_of_its_cells(build: Build) -> None:
    layout, inputs, predicted = CASES["parallel"]
    lm = build(layout, SPECS, inputs, heads=predicted, combine="mean")
    grid = lm.pack(streams_of(layout, [6]))
    with torch.no_grad():
        x = lm.embed(grid)
        for s in range(grid.num_steps):
            n = sum(int((p[0, :, s] >= 0).sum()) for p in grid.positions.values())
            assert torch.allclose(x[0, s], naive_embedding(lm, grid, 0, s) / n)


def test_log_prob_is_the_log_softmax_of_each_token(case: SpeechLM) -> None:
    streams = streams_of(case.layout, [6, 3])
    grid, scores = case.pack(streams), case.log_prob(streams)
    with torch.no_grad():
        hidden = case(grid)
    assert scores.keys() == case.heads.keys()
    for name in case.heads:
        owner, kind, head = case.wiring.rows_of(name), case.wiring.discrete(name), case.head(name)
        table = case.wiring.tables()[case.wiring.table_of(name)]
        expected = torch.zeros_like(scores[name])
        for b in range(2):
            for k in range(kind.num_codebooks):
                first = first_row(case, owner, k)
                # Alone in its table, a codebook has its own rows; otherwise it competes with all of them.
                # The end is an id of the first codebook only.
                count = kind.num_ids if k == 0 else kind.codebook_size
                own = head.weight[first : first + count] if len(table) == 1 else head.weight
                for s in range(int(grid.lengths[b])):
                    t = int(grid.positions[name][b, k, s])
                    if t >= 0:
                        target = int(grid.values[name][b, k, s]) + (0 if len(table) == 1 else first)
                        expected[b, k, t] = F.log_softmax(own @ hidden[b, s], dim=0)[target]
        assert torch.allclose(scores[name], expected, atol=1e-5)
        assert torch.all(scores[name][:, 0].gather(1, streams[name].lengths[:, None]) < 0), "the end has a probability"


def test_padding_changes_nothing(backbone: Transformer.Config | HF.Config, build: Build) -> None:
    lm, streams = (
        build(Flat("units"), SPECS, {"units": Lookup()}, backbone=backbone),
        streams_of(Flat("units"), [9, 4, 0]),
    )
    together = lm.log_prob(streams)["units"]
    for b in range(3):
        alone = lm.log_prob({"units": streams["units"].row(b)})["units"][0]
        assert torch.allclose(together[b, :, : alone.shape[1]], alone, atol=1e-6)
        assert not together[b, :, alone.shape[1] :].any()
    loss = lm.loss(lm.pack(streams))
    assert float(loss["units"].detach()) == pytest.approx(-float(together.sum()) / (9 + 4 + 0 + 3), rel=1e-5)


def test_nothing_sees_its_own_future(case: SpeechLM) -> None:
    grid = case.pack(streams_of(case.layout, [6]))
    with torch.no_grad():
        before = case(grid)
        for s in range(grid.num_steps):
            changed = {n: v.clone() for n, v in grid.values.items()}
            for name, value in changed.items():
                if value.is_floating_point():
                    value[:, s] += 1
                else:
                    value[:, :, s] = (value[:, :, s] + 1) % case.wiring.discrete(name).codebook_size
            after = case(replace(grid, values=changed))
            assert torch.equal(after[:, : s + 1], before[:, : s + 1])


def test_a_loss_is_weighted_by_stream(build: Build) -> None:
    layout, inputs, predicted = CASES["parallel"]
    lm = build(layout, SPECS, inputs, heads=predicted)
    with torch.no_grad():
        losses = lm.loss(lm.pack(streams_of(layout, [6, 3])), {"codes": 0.25})
    assert float(losses["total"]) == pytest.approx(float(losses["units"] + 0.25 * losses["codes"]))


def test_what_shares_a_table_competes_in_one_softmax(build: Build) -> None:
    layout, inputs, predicted = CASES["joint"]
    for tied in (False, True):
        lm = build(layout, SPECS, inputs, heads=predicted, tied=tied)
        text, units = lm.head("text"), lm.head("units")
        # Two matrices would each know half of the streams, and a choice between streams neither.
        assert text.weight is units.weight
        assert len(text.weight) == 12 + 31
        assert (text.weight is lm.tables["all"].embedding.weight) == tied
        streams = streams_of(layout, [4])
        shuffled = {n: streams[n] for n in reversed(streams)}
        assert torch.equal(lm.log_prob(streams)["text"], lm.log_prob(shuffled)["text"])


def test_separate_tables_do_not_compete(build: Build) -> None:
    lm = build(Parallel(("units", "other")), SPECS, {"units": Lookup(), "other": Lookup()})
    assert lm.head("units").weight is not lm.head("other").weight
    assert len(lm.tables) == 2


def test_tied_heads_have_no_matrix_of_their_own(build: Build) -> None:
    lm = build(Flat("units"), SPECS, {"units": Lookup()}, tied=True)
    assert lm.head("units").weight is lm.tables["units"].embedding.weight
    assert sum(len(p) == 31 for p in lm.parameters()) == 1


def test_a_channel_may_read_the_rows_of_another(build: Build) -> None:
    layout, inputs, predicted = CASES["channels"]
    lm = build(layout, SPECS, inputs, heads=predicted)
    assert list(lm.tables) == ["units"]
    streams = streams_of(layout, [5])
    same = {"units": streams["units"], "other": streams["units"]}
    grid = lm.pack(same)
    with torch.no_grad():
        assert torch.allclose(lm.embed(grid), 2 * lm.tables["units"]("units", grid.values["units"], None))


def test_a_stream_that_is_not_heard_has_no_embeddings(build: Build) -> None:
    layout, inputs, predicted = CASES["unheard"]
    lm = build(layout, SPECS, inputs, heads=predicted)
    assert list(lm.tables) == ["units"]
    lm.loss(lm.pack(streams_of(layout, [5])))["total"].backward()
    assert all(p.grad is not None for p in lm.parameters()), "parameters that nothing trains"


def test_every_parameter_is_trained(case: SpeechLM) -> None:
    case.loss(case.pack(streams_of(case.layout, [6, 3])))["total"].backward()
    for name, p in case.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name


def test_many_logits_are_computed_again_and_not_kept(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, inputs, predicted = CASES["parallel"]
    lm = build(layout, SPECS, inputs, heads=predicted)
    grid = lm.pack(streams_of(layout, [6, 3]))

    def gradients() -> list[Tensor]:
        lm.zero_grad()
        lm.loss(grid)["total"].backward()
        return [p.grad for p in lm.parameters() if p.grad is not None]

    whole = gradients()
    monkeypatch.setattr(heads, "_MOST_LOGITS", 64)
    for a, b in zip(whole, gradients(), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("name", ["flat", "answer"])
def test_mixed_precision_trains(name: str, build: Build, one_of_each: Transformer.Config | HF.Config) -> None:
    layout, inputs, predicted = CASES[name]
    lm = build(layout, SPECS, inputs, heads=predicted, backbone=one_of_each).float().train()
    with torch.no_grad():
        for p in lm.parameters():
            if p.ndim > 1:
                p.mul_(0.125)
    grid = lm.pack(streams_of(layout, [9, 4]))
    exact = lm.loss(grid)["total"]
    with torch.autocast("cpu", torch.bfloat16):
        loss = lm.loss(grid)["total"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=2e-2)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in lm.parameters())
    lm.bfloat16()
    assert float(lm.loss(grid)["total"].detach()) == pytest.approx(float(exact.detach()), rel=5e-2)


def test_a_crop_without_its_last_step_is_scored_as_far_as_it_goes(build: Build) -> None:
    lm = build(Flat("units"), SPECS, {"units": Lookup()})
    grid = lm.pack(streams_of(Flat("units"), [6]))
    with torch.no_grad():
        assert torch.allclose(lm.nll(grid.steps(0, 4))["units"], lm.nll(grid)["units"][:, :, :4], atol=1e-6)


def test_scores_of_nothing(build: Build) -> None:
    lm = build(Flat("units", closed=False), SPECS, {"units": Lookup()})
    nothing = {"units": TokenSequence(torch.zeros((2, 1, 0), dtype=torch.long), torch.tensor([0, 0]))}
    assert lm.log_prob(nothing)["units"].shape == (2, 1, 0)
    assert float(lm.loss(lm.pack(nothing))["total"].detach()) == 0


def config(layout: Layout, inputs: Inputs, predicted: Mapping[str, Linear.Config]) -> SpeechLM.Config:
    own = Transformer.Config(num_layers=1, num_heads=2, dim=16)
    return SpeechLM.Config(layout=layout, backbone=own, inputs=inputs, heads=predicted)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (config(Flat("units"), {"mel": Lookup()}, {"units": Linear.Config()}), "inputs name stream 'mel'"),
        (config(Flat("units"), {"units": Lookup()}, {"mel": Linear.Config()}), "heads name stream 'mel'"),
        (config(Flat("units"), {}, {"units": Linear.Config()}), "no inputs or no heads"),
        (config(Flat("units"), {"units": Lookup()}, {}), "no inputs or no heads"),
        (config(Flat("units"), {"units": Project.Config()}, {"units": Linear.Config()}), "cannot be projected"),
        (config(Flat("heard"), {"heard": Lookup()}, {"heard": Linear.Config()}), "'heard' holds features"),
        (config(Flat("heard"), {"heard": Project.Config()}, {"heard": Linear.Config()}), "'heard' holds features"),
        (
            config(
                Parallel(("units", "text")),
                {"units": Lookup(), "text": Lookup(tied_to="units")},
                {"units": Linear.Config()},
            ),
            "'text' is tied to 'units'",
        ),
        (
            config(
                Parallel(("units", "other")),
                {"units": Lookup(tied_to="other"), "other": Lookup(tied_to="units")},
                {"units": Linear.Config()},
            ),
            "is tied to",
        ),
        (
            config(
                Concat((Flat("heard"), Flat("text"))),
                {"heard": Project.Config(tied_to="text"), "text": Lookup()},
                {"text": Linear.Config()},
            ),
            "has no map of its own",
        ),
        (
            config(
                Merge(("units", "other")),
                {"units": Lookup("all"), "other": Lookup("all")},
                {"units": Linear.Config(tied=True), "other": Linear.Config()},
            ),
            "Tie all of them or none",
        ),
    ],
)
def test_models_that_do_not_fit_together_are_refused(wrong: SpeechLM.Config, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wrong.build(SPECS)


def test_features_enter_by_the_map_of_another_stream() -> None:
    specs = {**SPECS, "more": SPECS["heard"]}
    inputs = {"heard": Project.Config(), "more": Project.Config(tied_to="heard"), "text": Lookup()}
    layout = Concat((Flat("heard"), Flat("more"), Flat("text")))
    lm: SpeechLM = config(layout, inputs, {"text": Linear.Config()}).build(specs)
    assert list(lm.inputs) == ["heard"]
    streams = {"text": streams_of(Flat("text"), [3])["text"]}
    both = streams_of(Flat("heard"), [5])["heard"]
    parts = {"heard": both.cut(0, 2), "more": both.cut(2), **streams}
    whole = {"heard": both, "more": both.cut(5), **streams}
    scores = [lm.log_prob(s)["text"] for s in (parts, whole)]
    torch.testing.assert_close(*scores)


def test_features_enter_through_a_gate() -> None:
    torch.manual_seed(0)
    project = Project.Config(hidden=7, activation="swiglu").build(Continuous(6), 5)
    x = torch.randn(2, 3, 6)
    gate, value = F.linear(x, project.first.weight, project.first.bias).split(7, dim=-1)
    torch.testing.assert_close(project(x), project.second(torch.sigmoid(gate) * gate * value))
    assert project.first.weight.shape == (14, 6)
