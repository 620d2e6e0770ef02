"""Rows that join and leave a batch: each gets what it gets alone, and its state is as it is alone."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lalia.errors import ConfigError, LayoutError
from lalia.layouts import Concat, Flat, Parallel
from lalia.lm import HF, ContinuousBatch, Depth, DepthTransformer, Lookup, Sampler, Sampling, SpeechLM, Transformer
from lalia.lm.generation import absorb
from lalia.nn.kv import KVState
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence
from tiny_mini import tiny_mini

Build = Callable[..., SpeechLM]

SPECS = {
    "asked": StreamSpec(kind=Discrete(30), frame_rate=None),
    "text": StreamSpec(kind=Discrete(30, end=3), frame_rate=None),
    "codes": StreamSpec(kind=Discrete(9, num_codebooks=3), frame_rate=25.0),
}
ENDLESS = {"text": ((3, 4),)}
SAMPLED, GREEDY = Sampler(Sampling(temperature=1.5, top_k=20)), Sampler(Sampling(temperature=0.0))


def asked(length: int, seed: int) -> Streams:
    values = torch.randint(30, (1, 1, length), generator=torch.Generator().manual_seed(seed))
    return {"asked": TokenSequence(values, torch.tensor([length]))}


@pytest.fixture
def lm(build: Build, backbone: Transformer.Config | HF.Config) -> SpeechLM:
    layout = Concat((Flat("asked", closed=False), Flat("text")))
    return build(layout, SPECS, {"asked": Lookup(), "text": Lookup()}, heads=("text",), backbone=backbone)


def drive(parts: dict[int, Iterator[Streams]], order: random.Random) -> dict[int, list[Tensor]]:
    """Ask now one row, now another, until all are over."""
    out: dict[int, list[Tensor]] = {i: [] for i in parts}
    while parts:
        i = order.choice(list(parts))
        part = next(parts[i], None)
        if part is None:
            del parts[i]
        else:
            out[i] += [t.values for t in part.values()]
    return out


def seen(state: Any) -> Tensor:
    """What a state of one row holds, without what is beside it."""
    if isinstance(state, KVState):
        return torch.cat([x[:, :, : int(state.position[0])] for x in (*state.keys, *state.values)], dim=1)
    return torch.cat([x[:, :, state.mask[0]] for x in (*state.keys, *state.values)], dim=1)


def settings(lm: SpeechLM, i: int) -> dict[str, Any]:
    """A row of its own length, sampler and seed, after something that was heard before."""
    state = absorb(lm, asked(3 + i, 100 + i))
    sampler = GREEDY if i % 3 == 0 else SAMPLED
    return {"sampler": sampler, "complete": ["asked"], "limits": {"text": 6 + 3 * i}, "seeds": [i], "state": state}


@pytest.mark.parametrize("ahead", [0, 3, 20])
def test_rows_get_what_they_get_alone(lm: SpeechLM, ahead: int) -> None:
    alone = {i: settings(lm, i) for i in range(4)}
    wanted = {i: [t.values for p in lm.generate(asked(2 + i, i), **s) for t in p.values()] for i, s in alone.items()}
    batch, together = ContinuousBatch(lm, ahead=ahead), {i: settings(lm, i) for i in range(4)}
    rows = {i: batch.generate(asked(2 + i, i), **s) for i, s in together.items()}
    got = drive(rows, random.Random(ahead))
    assert batch.rows == []
    for i in alone:
        assert [x.tolist() for x in got[i]] == [x.tolist() for x in wanted[i]], i
        states = alone[i]["state"], together[i]["state"]
        assert states[0].position.tolist() == states[1].position.tolist()
        torch.testing.assert_close(seen(states[0]), seen(states[1]))


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_a_row_that_is_closed_has_not_gone_ahead(lm: SpeechLM, taken: int) -> None:
    endless = {"sampler": SAMPLED.ban(**ENDLESS), "limits": {"text": 40}}
    alone, together, beside = ({**settings(lm, 5), **endless} for _ in range(3))
    first = lm.generate(asked(2, 0), **alone)
    batch = ContinuousBatch(lm, ahead=4)
    second, third = batch.generate(asked(2, 0), **together), batch.generate(asked(4, 1), **beside)
    for _ in range(taken):
        assert torch.equal(next(first)["text"].values, next(second)["text"].values)
    # The other takes it further.
    for _ in range(3):
        next(third)
    sight = lm.backbone.sight if isinstance(lm.backbone, Transformer) else lm.backbone.model.config
    windowed = getattr(sight, "window", None) is not None
    assert batch.rows[0].made == taken if windowed else batch.rows[0].made > taken
    first.close()  # type: ignore[attr-defined]
    second.close()  # type: ignore[attr-defined]
    torch.testing.assert_close(seen(alone["state"]), seen(together["state"]))
    more = [list(lm.generate(asked(3, 2), **s)) for s in (alone, together)]
    assert [p["text"].values.tolist() for p in more[0]] == [p["text"].values.tolist() for p in more[1]]
    assert len(batch.rows) == 1


def test_one_that_is_never_asked_reads_nothing(lm: SpeechLM) -> None:
    batch, own = ContinuousBatch(lm), settings(lm, 1)
    before = own["state"].position.clone()
    rows = batch.generate(asked(2, 0), **own)
    assert batch.rows == []
    rows.close()  # type: ignore[attr-defined]
    assert torch.equal(own["state"].position, before)


def test_a_step_is_taken_for_all_that_are_not_too_far_ahead(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Flat("codes", closed=False)
    lm = build(layout, SPECS, {"codes": Lookup()})
    sizes: list[int] = []
    forward = SpeechLM.forward

    def counted(self: SpeechLM, grid: Any, *arguments: Any, **more: Any) -> Tensor:
        sizes.append(len(grid))
        return forward(self, grid, *arguments, **more)

    monkeypatch.setattr(SpeechLM, "forward", counted)
    start = {"codes": TokenSequence(torch.zeros(1, 3, 1, dtype=torch.long), torch.tensor([1]))}
    batch = ContinuousBatch(lm, ahead=4)
    rows = [batch.generate(start, limits={"codes": 9}) for _ in range(3)]
    for row in rows:
        next(row)
    next(rows[2])
    # What is known is read alone; the third has its first frame together with the others.
    assert sizes[0] == 1
    assert {row.made - row.given for row in batch.rows} <= {0, 1, 2, 3, 4}
    before = [row.made for row in batch.rows]
    for _ in range(6):
        next(rows[0])
    assert batch.rows[1].made - batch.rows[1].given == batch.rows[2].made - batch.rows[2].given == 4
    assert max(sizes) == 3
    assert sizes[-1] == 1
    assert batch.rows[0].made == batch.rows[0].given > before[0] + 12


def test_a_row_that_does_not_step_is_left_as_it_is(lm: SpeechLM) -> None:
    batch = ContinuousBatch(lm)
    rows = [
        batch.join(asked(3 + i, i), sampler=SAMPLED, complete=["asked"], limits={"text": 50}, seed=i) for i in range(3)
    ]
    kept = [row for row in rows if row.ready]
    assert len(kept) == 3
    state = kept[1].state
    before = [None if x is None else x.clone() for x in (*state.keys, *state.values)], state.position.clone()
    made, hidden = kept[1].made, kept[1].hidden
    batch.step([kept[0], kept[2]])
    after = [*state.keys, *state.values]
    for a, b in zip(before[0], after, strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)
    assert torch.equal(state.position, before[1])
    assert kept[1].made == made
    assert kept[1].hidden is hidden


def test_a_state_whose_window_is_full_is_not_taken_ahead(build: Build) -> None:
    backbone = Transformer.Config(num_layers=2, num_heads=4, dim=32, window=6)
    lm = build(Flat("text"), SPECS, {"text": Lookup()}, backbone=backbone)
    known = {"text": TokenSequence(torch.tensor([[[5, 6, 7]]]), torch.tensor([3]))}
    alone, together = (
        {"state": lm.init_state(1, 8), "sampler": SAMPLED.ban(**ENDLESS), "limits": {"text": 40}} for _ in range(2)
    )
    batch = ContinuousBatch(lm)
    one, two = lm.generate(known, **alone), batch.generate(known, **together)  # type: ignore[arg-type]
    other = batch.generate(known, sampler=GREEDY.ban(**ENDLESS), limits={"text": 60}, state=lm.init_state(1, 8))
    for _ in range(10):
        assert torch.equal(next(one)["text"].values, next(two)["text"].values)
    assert int(batch.rows[0].state.position[0]) > 6
    for _ in range(5):
        next(other)
    assert batch.rows[0].made == batch.rows[0].given
    two.close()  # type: ignore[attr-defined]
    states = alone["state"], together["state"]
    assert states[0].position.tolist() == states[1].position.tolist()  # type: ignore[attr-defined]


def test_heads_of_several_codebooks(build: Build) -> None:
    """A depth Transformer keeps a scratch for the rows of a step, whoever they are."""
    layout = Parallel(("text", "codes"), delays=(0, 1, 2, 2))
    config = SpeechLM.Config(
        layout=layout,
        inputs={"text": Lookup(), "codes": Lookup()},
        backbone=Transformer.Config(num_layers=2, num_heads=4, dim=32),
        heads={
            "text": build(Flat("text"), SPECS, {"text": Lookup()}).config.heads["text"],
            "codes": Depth.Config(DepthTransformer.Config(num_layers=1, num_heads=2, dim=16, ffn_dim=32), first="text"),
        },
    )
    torch.manual_seed(0)
    lm: SpeechLM = config.build(SPECS).double().eval()
    sampler = Sampler(Sampling(temperature=1.0), banned={"text": ((3, 4),), "codes": ((9, 10),)})
    batch = ContinuousBatch(lm)
    settings: Any = {"sampler": sampler, "limits": {"text": 8, "codes": 8}}
    start = {"text": TokenSequence(torch.tensor([[[5]]]), torch.tensor([1]))}
    rows = {i: batch.generate(start, seeds=[i], **settings) for i in range(3)}
    got = drive(rows, random.Random(1))
    for i in range(3):
        alone = [t.values for p in lm.generate(start, seeds=[i], **settings) for t in p.values()]
        assert sorted(x.shape for x in got[i]) == sorted(x.shape for x in alone)
        assert all(torch.equal(a, b) for a, b in zip(got[i], alone, strict=True))


def test_rows_come_one_by_one(lm: SpeechLM) -> None:
    batch = ContinuousBatch(lm)
    two = {"asked": TokenSequence(torch.zeros(2, 1, 3, dtype=torch.long), torch.tensor([3, 3]))}
    with pytest.raises(LayoutError, match="one by one"):
        next(batch.generate(two))
    with pytest.raises(LayoutError, match="nothing known"):
        next(batch.generate({}, state=lm.init_state(1)))
    running = batch.join(asked(2, 0), complete=["asked"])
    with pytest.raises(LayoutError, match="not awaited"):
        running.hear(**asked(1, 0))


def test_single_precision_halves_and_packed_weights() -> None:
    """The language model of mini, as small as it gets, as it is used: in single precision, its weights compact."""
    model = tiny_mini()
    model.compact()
    lm: Any = model.lms["llm"]
    names = ("before", "question", "manner", "after")

    def known(i: int) -> Streams:
        given = {
            n: TokenSequence(
                torch.randint(9, (1, 1, 3 + i), generator=torch.Generator().manual_seed(i)), torch.tensor([3 + i])
            )
            for n in ("before", "after")
        }
        return given

    batch = ContinuousBatch(lm)
    settings: Any = {"complete": names, "limits": {"text": 30}}
    alone, together = ([absorb(lm, {"before": known(i)["before"]}) for i in range(4)] for _ in range(2))
    wanted = [
        [p["text"].values.tolist() for p in lm.generate(known(i), seeds=[i], state=alone[i], **settings)]
        for i in range(4)
    ]
    rows = {i: batch.generate(known(i), seeds=[i], state=together[i], **settings) for i in range(4)}
    got = drive(rows, random.Random(2))
    assert [[x.tolist() for x in got[i]] for i in range(4)] == wanted
    assert sum(len(x) for x in wanted) > 20


def test_a_row_that_can_go_no_further_stops_no_other(build: Build) -> None:
    backbone = Transformer.Config(num_layers=2, num_heads=4, dim=32, positions="learned", context=12)
    lm = build(Flat("text"), SPECS, {"text": Lookup()}, backbone=backbone)
    sampler = SAMPLED.ban(**ENDLESS)
    known = [{"text": TokenSequence(torch.full((1, 1, n), 7), torch.tensor([n]))} for n in (2, 9)]
    alone = [t.values for p, _ in zip(lm.generate(known[0], sampler=sampler), range(9)) for t in p.values()]  # noqa: B905
    batch = ContinuousBatch(lm)
    short, long = (batch.generate(k, sampler=sampler) for k in known)
    got = [next(short)["text"].values]
    for _ in range(3):
        next(long)
    got += [next(short)["text"].values for _ in range(8)]
    assert [x.tolist() for x in got] == [x.tolist() for x in alone]
    with pytest.raises(ConfigError, match="learned positions"):
        list(long)
    assert len(batch.rows) == 1
