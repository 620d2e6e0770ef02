"""The heads beside the linear one: each loss against a naive one, and generation against what was trained."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.errors import ConfigError
from lalia.layouts import Concat, Flat, Layout, Parallel
from lalia.lm import (
    CTC,
    Depth,
    DepthTransformer,
    DualTower,
    EdgeUnits,
    Flow,
    Graph,
    Head,
    Linear,
    Lookup,
    Project,
    Regress,
    Sampler,
    Sampling,
    SpeechLM,
    State,
    Transformer,
    collect,
)
from lalia.lm.graph import hidden_spec
from lalia.streams import Continuous, Discrete, Streams, StreamSpec, TokenSequence
from lalia.tokenizers import States
from lalia.training.objectives.next_token import NextToken

OWN = Transformer.Config(num_layers=2, num_heads=2, dim=16, ffn_dim=32)
TOWER = DualTower.Config(num_layers=2, cross_layers=1, num_heads=2, dim=16, ffn_dim=32)
UNITS = StreamSpec(kind=Discrete(12), frame_rate=50.0)
SPECS = {
    "a": UNITS,
    "b": UNITS,
    "text": StreamSpec(kind=Discrete(9), frame_rate=None),
    "state": StreamSpec(kind=Discrete(3), frame_rate=None),
    "mel": StreamSpec(kind=Continuous(5), frame_rate=50.0),
    "units": StreamSpec(kind=Discrete(12), frame_rate=50.0, deduplicated=True),
}


def build(
    layout: Layout,
    inputs: Mapping[str, Lookup | Project.Config],
    heads: Mapping[str, Head.Config],
    specs: Mapping[str, StreamSpec] = SPECS,
    backbone: Transformer.Config | DualTower.Config = OWN,
    towers: tuple[str, ...] = (),
    upsample: int = 1,
) -> SpeechLM:
    torch.manual_seed(0)
    config = SpeechLM.Config(
        layout=layout, backbone=backbone, inputs=inputs, heads=heads, towers=towers, upsample=upsample
    )
    lm: SpeechLM = config.build(specs)
    with torch.no_grad():
        for p in lm.parameters():
            if p.ndim > 1:
                p.mul_(8.0)
    return lm.eval()


def codes(rows: list[list[int]]) -> TokenSequence:
    longest = max(map(len, rows))
    values = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
    return TokenSequence(values[:, None], torch.tensor([len(r) for r in rows]))


def frames(lengths: list[int], dim: int = 5, seed: int = 0) -> TokenSequence:
    values = torch.randn(len(lengths), max(lengths), dim, generator=torch.Generator().manual_seed(seed))
    return TokenSequence(values, torch.tensor(lengths))


# -- edge units ---------------------------------------------------------------------------------

RUNS = [[3, 3, 3, 5, 1, 1, 1, 1, 2], [7, 4, 4]]


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("closed", [False, True])
def test_edge_units_are_predicted_where_units_change(delayed: bool, closed: bool) -> None:
    lm = build(Flat("a", closed=closed), {"a": Lookup()}, {"a": EdgeUnits.Config(delayed=delayed)})
    head = lm.head("a")
    assert isinstance(head, EdgeUnits)
    grid = lm.pack({"a": codes(RUNS)})
    with torch.no_grad():
        hidden, losses, counts = lm(grid), lm.losses(grid), lm.counts(grid)
        unit = duration = 0.0
        edges = known = 0
        for b, row in enumerate(RUNS):
            s = 0
            whole = [*row, 12] if closed else row
            runs = [(u, len(list(g))) for u, g in groupby(whole)]
            for i, (u, n) in enumerate(runs):
                unit -= float(head.units(hidden[b, s]).log_softmax(dim=-1)[u])
                edges += 1
                if i < len(runs) - 1:
                    duration += abs(float(head.duration(hidden[b, s + delayed])[0]) - n)
                    known += 1
                s += n
    assert counts == {"a": edges, "a.duration": known}
    assert float(losses["a"]) == pytest.approx(unit, rel=1e-5)
    assert float(losses["a.duration"]) == pytest.approx(duration, rel=1e-5)


def test_units_are_repeated_for_their_duration() -> None:
    lm = build(Flat("a", closed=False), {"a": Lookup()}, {"a": EdgeUnits.Config()})
    head = lm.head("a")
    assert isinstance(head, EdgeUnits)
    with torch.no_grad():
        head.duration.weight.zero_()
        head.duration.bias.fill_(3.2)
    sampler = Sampler(Sampling(temperature=1.0))
    made = collect(lm.generate(sampler=sampler, max_steps=12, batch_size=2))["a"]
    for b in range(2):
        assert [len(list(g)) for _, g in groupby(made.values[b, 0].tolist())] == [3, 3, 3, 3]
    # A prompt that stops within a run is finished first.
    after = collect(lm.generate({"a": codes([[4, 4]])}, sampler=sampler, max_steps=7))["a"].values[0, 0].tolist()
    assert after[0] == 4
    assert [len(list(g)) for _, g in groupby(after)] == [1, 3, 3]


def test_rows_of_edge_units_do_not_disturb_one_another() -> None:
    lm = build(Flat("a", closed=False), {"a": Lookup()}, {"a": EdgeUnits.Config()})
    prompts = codes([[1, 1, 2], [5], [3, 3, 3, 3]])
    sampler = Sampler(Sampling(temperature=1.0))
    together = collect(lm.generate({"a": prompts}, sampler=sampler, max_steps=15, seeds=[1, 2, 3]))["a"]
    for b in range(3):
        alone = collect(lm.generate({"a": prompts.row(b)}, sampler=sampler, max_steps=15, seeds=[b + 1]))["a"]
        assert together.row(b).values.tolist() == alone.values.tolist()


def test_two_towers_are_trained_and_generate_side_by_side() -> None:
    lm = build(
        Parallel(("a", "b"), closed=False),
        {"a": Lookup(), "b": Lookup(tied_to="a")},
        {"a": EdgeUnits.Config(), "b": EdgeUnits.Config()},
        backbone=TOWER,
        towers=("a", "b"),
    )
    streams = {"a": codes([RUNS[0]]), "b": codes([[2, 2, 2, 2, 2, 6, 6, 0, 0]])}
    grid = lm.pack(streams)
    loss = lm.loss(grid)
    assert set(loss) == {"a", "a.duration", "b", "b.duration", "total"}
    loss["total"].backward()
    assert all(p.grad is not None for p in lm.parameters())
    with torch.no_grad():
        whole = lm(grid)
        state = lm.init_state(1)
        pieces = [lm(grid.steps(0, 3), state)]
        pieces += [lm(grid.steps(s, s + 1), state, first=False) for s in range(3, 8)]
        assert torch.allclose(torch.cat(pieces, dim=2), whole, atol=1e-4)
    made = collect(lm.generate(streams, sampler=Sampler(Sampling(temperature=1.0)), max_steps=20))
    assert made["a"].num_tokens == made["b"].num_tokens == 20


# -- CTC ----------------------------------------------------------------------------------------


def ctc_pair() -> Graph:
    llm = build(Flat("text"), {"text": Lookup()}, {"text": Linear.Config()})
    specs = {**SPECS, "llm.hidden": hidden_spec(16)}
    decoder = build(
        Flat("llm.hidden"), {"llm.hidden": Project.Config()}, {"units": CTC.Config()}, specs=specs, upsample=4
    )
    return Graph({"llm": llm, "decoder": decoder})


def test_ctc_is_found_along_the_hidden_states_of_another_model() -> None:
    graph = ctc_pair()
    assert graph.feeders("decoder") == ["llm"]
    assert graph.streams("decoder") == ("text", "units")
    streams = {"text": codes([[1, 2, 3], [4]]), "units": codes([[5, 6, 7, 5], [1, 2]])}
    grids = graph.grids("decoder", streams)
    objective = NextToken(graph, name="decoder")
    batch = {"grid": grids["decoder"], "feeds": {"llm": grids["llm"]}, "streams": {"units": streams["units"]}}
    assert objective.counts(batch) == {"units": 6.0}
    loss = objective.losses("model", batch)["units"]
    loss.backward()
    assert all(p.grad is not None for p in graph.lms["decoder"].parameters() if p is not graph.lms["decoder"].start)
    # Its definition: every way to spell the units along the steps of one row.
    llm, decoder = graph.lms["llm"], graph.lms["decoder"]
    head = decoder.head("units")
    assert isinstance(head, CTC)
    total = 0.0
    with torch.no_grad():
        for b in range(2):
            row = {n: t.row(b) for n, t in streams.items()}
            hidden = llm(llm.pack({"text": row["text"]}))[0]
            x = decoder.inputs["llm/hidden"](hidden).repeat_interleave(4, dim=0)
            logits = head.labels(decoder.backbone(x[None]))[0].log_softmax(dim=-1)
            total -= float(_all_alignments(logits, row["units"].values[0, 0].tolist(), blank=12))
    assert float(loss.detach()) == pytest.approx(total, rel=1e-4)


def _all_alignments(logits: Tensor, units: list[int], blank: int) -> Tensor:
    """log p(units), by the forward recursion over (step, place in the spelling with blanks)."""
    spelling = [blank, *(x for u in units for x in (u, blank))]
    alpha = {0: logits[0, spelling[0]], 1: logits[0, spelling[1]]}
    for step in logits[1:]:
        following = {}
        for place, label in enumerate(spelling):
            sources = [place, place - 1]
            if label != blank and place > 1 and spelling[place - 2] != label:
                sources.append(place - 2)
            found = [alpha[s] for s in sources if s in alpha]
            if found:
                following[place] = torch.stack(found).logsumexp(dim=0) + step[label]
        alpha = following
    return torch.stack([alpha[p] for p in (len(spelling) - 1, len(spelling) - 2) if p in alpha]).logsumexp(dim=0)


def test_ctc_in_pieces_gives_what_the_whole_gives() -> None:
    decoder = ctc_pair().lms["decoder"]
    head = decoder.head("units")
    assert isinstance(head, CTC)
    hidden, lengths = torch.randn(2, 40, 16), torch.tensor([40, 31])
    whole = head.decode(hidden, lengths)
    state = head.init_state(2)
    found: list[list[int]] = [[], []]
    for start in range(0, 40, 7):
        part = hidden[:, start : start + 7]
        made = head.decode(part, (lengths - start).clamp(0, part.shape[1]), state)
        for b in range(2):
            found[b] += made.row(b).values[0, 0].tolist()
    assert found == [whole.row(b).values[0, 0].tolist() for b in range(2)]
    labels = head.labels(hidden[1, :31]).argmax(dim=-1).tolist()
    assert found[1] == [u for u, _ in groupby(labels) if u != 12]


# -- depth --------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_step", [True, False])
def test_codes_of_a_step_are_drawn_as_they_are_trained(per_step: bool) -> None:
    specs = {**SPECS, "codes": StreamSpec(kind=Discrete(7, num_codebooks=3), frame_rate=12.5)}
    network = DepthTransformer.Config(
        num_layers=2, num_heads=2, dim=8, weights_per_step=per_step, positions="none" if per_step else "learned"
    )
    lm = build(
        Parallel(("text", "codes"), delays=(0, 0, 1, 1), closed=False),
        {"text": Lookup(), "codes": Lookup()},
        {"text": Linear.Config(), "codes": Depth.Config(network, first="text")},
        specs=specs,
    )
    greedy = Sampler(Sampling(temperature=0.0))
    made = collect(lm.generate(sampler=greedy, max_steps=9, batch_size=2))
    assert made["codes"].values.shape == (2, 3, 8)
    grid = lm.pack({n: t.cut(0, 8) for n, t in made.items()})
    with torch.no_grad():
        nll = lm.nll(grid)["codes"]
        assert torch.equal(nll > 0, grid.present("codes"))
        # What was drawn is the likeliest code given those before: no other code of the same cell has less loss.
        for k in range(3):
            for s in range(1, 8):
                for code in range(7):
                    other = grid.values["codes"].clone()
                    other[:, k, s] = code
                    changed = {**grid.values, "codes": other}
                    worse = lm.nll(replace(grid, values=changed))["codes"][:, k, s]
                    assert (worse >= nll[:, k, s] - 1e-4).all()
    loss = lm.train().loss(grid)["total"]
    loss.backward()
    assert all(p.grad is not None for p in lm.parameters())


def test_rows_of_depth_do_not_disturb_one_another() -> None:
    specs = {**SPECS, "codes": StreamSpec(kind=Discrete(7, num_codebooks=3), frame_rate=12.5)}
    lm = build(
        Parallel(("codes",), delays=(0, 1, 2), closed=False),
        {"codes": Lookup()},
        {"codes": Depth.Config(DepthTransformer.Config(num_layers=1, num_heads=2, dim=8))},
        specs=specs,
    )
    values = torch.randint(7, (2, 3, 5))
    prompts = TokenSequence(values, torch.tensor([5, 2]))
    sampler = Sampler(Sampling(temperature=1.0))
    together = collect(lm.generate({"codes": prompts}, sampler=sampler, max_steps=9, seeds=[1, 2]))["codes"]
    for b in range(2):
        alone = collect(lm.generate({"codes": prompts.row(b)}, sampler=sampler, max_steps=9, seeds=[b + 1]))["codes"]
        assert together.row(b).values.tolist() == alone.values.tolist()


# -- features -----------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [Regress.Config(), Regress.Config(hidden=8, stops=False), Flow.Config(dim=16)])
def test_features_are_predicted_and_generated(head: Head.Config) -> None:
    lm = build(
        Concat((Flat("text"), Parallel(("mel",), delays=(1,)))),
        {"text": Lookup(), "mel": Project.Config()},
        {"mel": head},
    )
    streams: Streams = {"text": codes([[1, 2], [3]]), "mel": frames([6, 4])}
    loss = lm.loss(lm.pack(streams))
    assert set(loss) - {"total"} == set(lm.terms)
    loss["total"].backward()
    made = collect(lm.generate({"text": streams["text"]}, limits={"mel": 9}))["mel"]
    assert made.values.shape[2] == 5
    assert 0 < made.num_tokens <= 9
    again = collect(lm.generate({"text": streams["text"].row(1)}, limits={"mel": 9}, seeds=[1]))["mel"]
    # Of a generation that goes on from its own values, rounding grows with them.
    assert torch.allclose(made.row(1).values, again.values, rtol=1e-4, atol=1e-3), "a row depends on its batch"


def test_regression_compares_values_and_differences() -> None:
    lm = build(Flat("mel"), {"mel": Project.Config()}, {"mel": Regress.Config(deltas=2)})
    mel = frames([5, 3])
    grid = lm.pack({"mel": mel})
    head = lm.head("mel")
    assert isinstance(head, Regress)
    expected = stop = 0.0
    with torch.no_grad():
        hidden = lm(grid)
        for b, n in enumerate([5, 3]):
            error = head.out(hidden[b, :n]) - mel.values[b, :n]
            parts = [error, error[:, 1:] - error[:, :-1]]
            for _ in range(2):
                error = error[1:] - error[:-1]
                parts.append(error)
            expected += sum(float((p.abs() + p.square()).mean(dim=1).sum()) for p in parts if p.numel())
            last = F.one_hot(torch.tensor(n - 1), n).float()
            assert head.stop is not None
            stop += float(F.binary_cross_entropy_with_logits(head.stop(hidden[b, :n])[:, 0], last, reduction="sum"))
        losses = lm.losses(grid)
    assert float(losses["mel"]) == pytest.approx(expected, rel=1e-5)
    assert float(losses["mel.stop"]) == pytest.approx(stop, rel=1e-5)


def test_a_frame_that_is_the_last_ends_its_stream() -> None:
    lm = build(Flat("mel"), {"mel": Project.Config()}, {"mel": Regress.Config()})
    head = lm.head("mel")
    assert isinstance(head, Regress)
    assert head.stop is not None
    with torch.no_grad():
        head.stop.weight.zero_()
        head.stop.bias.fill_(1.0)
    assert collect(lm.generate(limits={"mel": 9}))["mel"].num_tokens == 1
    with torch.no_grad():
        head.stop.bias.fill_(-1.0)
    assert collect(lm.generate(limits={"mel": 9}))["mel"].num_tokens == 9


def test_a_stream_of_states_learns_when_frames_are_over() -> None:
    """As many frames as the text says, from 2 to 5: whether there is one more is a stream of its own."""
    layout = Concat((Flat("text"), Parallel(("state", "mel"), delays=(0, 1), together={"mel": "state"})))
    lm = build(
        layout,
        {"text": Lookup(), "state": Lookup(), "mel": Project.Config()},
        {"state": Linear.Config(), "mel": Flow.Config(num_layers=1, dim=16, steps=2, stops=False)},
        {**SPECS, "state": States.Config(rate=50.0).spec},
    )
    counts, states = [2, 3, 4, 5], States.Config(rate=50.0).build()
    text = codes([[n] for n in counts])
    optimizer = torch.optim.Adam(lm.parameters(), 5e-3)
    for _ in range(300):
        # Other frames each time: they tell nothing about how many there are.
        mel = replace(frames(counts), values=0.1 * torch.randn(4, 5, 5))
        optimizer.zero_grad()
        lm.loss(lm.pack({"text": text, "mel": mel, "state": states.along(mel)}))["total"].backward()
        optimizer.step()
    greedy = Sampler(Sampling(temperature=0.0))
    made = collect(lm.generate({"text": text}, sampler=greedy, limits={"mel": 20, "state": 20}))
    assert made["mel"].lengths.tolist() == made["state"].lengths.tolist() == counts


def test_a_flow_learns_where_frames_lie() -> None:
    torch.manual_seed(0)
    head: Flow = Flow.Config(dim=64, num_layers=2, steps=20, stops=False).build(
        stream="mel", specs=SPECS, dim=2, closed=False
    )
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    lm = build(Flat("mel"), {"mel": Project.Config()}, {"mel": Regress.Config()})
    for _ in range(250):
        side = torch.randint(2, (64, 1)).float() * 2 - 1
        target = 2 * side.expand(64, 5) + 0.1 * torch.randn(64, 5)
        grid = lm.pack({"mel": TokenSequence(target[:, None], torch.ones(64, dtype=torch.long))})
        loss = head.losses(torch.cat([side, side], dim=1)[:, None], grid, {})["mel"] / 64
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.eval()
    from lalia.lm.head import Ask

    condition = torch.tensor([[1.0, 1.0]] * 50 + [[-1.0, -1.0]] * 50)
    ask = Ask(0, condition, [], [], lambda x: [], lambda n: torch.randn(100, n), {})
    with torch.no_grad():
        made = torch.stack([frame for frame, _ in head.draw(ask)])
    assert (made[:50].mean(dim=0) - 2).abs().max() < 0.4
    assert (made[50:].mean(dim=0) + 2).abs().max() < 0.4


# -- states and mistakes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "heads", "options", "message"),
    [
        (Flat("mel"), {"mel": Linear.Config()}, {}, "holds features"),
        (Flat("a"), {"a": Regress.Config()}, {}, "predicts features"),
        (Flat("units"), {"units": EdgeUnits.Config()}, {}, "without repeats"),
        (Flat("state"), {"state": State.Config(("x",))}, {}, "names 1 labels"),
        (Flat("a"), {"a": Linear.Config(), "units": CTC.Config()}, {}, "Use two LMs"),
        (Flat("a"), {"a": Linear.Config()}, {"upsample": 2}, "upsample 2"),
        (Flat("a"), {"a": Linear.Config()}, {"towers": ("a",)}, "DualTower needs"),
        (Flat("a"), {"a": Linear.Config()}, {"backbone": TOWER}, "DualTower needs"),
    ],
)
def test_heads_that_do_not_fit_are_refused(
    layout: Layout, heads: Mapping[str, Head.Config], options: Mapping[str, object], message: str
) -> None:
    stream = layout.streams[0]
    inputs = {stream: Project.Config() if stream == "mel" else Lookup()}
    with pytest.raises(ConfigError, match=message):
        build(layout, inputs, heads, **options)  # type: ignore[arg-type]
