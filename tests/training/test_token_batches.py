import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from lalia.data import Mixture, MixtureDataset, Source, StreamInfo, TokenRow, write_shard
from lalia.layouts import Flat
from lalia.lm import Linear, Lookup, SpeechLM, Transformer
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.training.objectives.next_token import NextToken
from lalia.training.token_batches import TokenBatches, held_out

SPECS = {
    "units": StreamSpec(kind=Discrete(20), frame_rate=50.0, deduplicated=True),
    "other": StreamSpec(kind=Discrete(5), frame_rate=25.0),
}


@pytest.fixture
def lm() -> SpeechLM:
    config = SpeechLM.Config(
        layout=Flat("units"),
        inputs={"units": Lookup()},
        backbone=Transformer.Config(num_layers=1, num_heads=2, dim=16),
        heads={"units": Linear.Config()},
    )
    made: SpeechLM = config.build(SPECS)
    return made


def write(folder: Path, lengths: list[int]) -> MixtureDataset:
    """Codes that count up from one that tells the utterance; another stream beside them."""
    folder.mkdir()
    info = {n: StreamInfo(s, "test", hashlib.sha256(n.encode()).hexdigest(), {"type": "t"}) for n, s in SPECS.items()}
    rows = []
    for i, n in enumerate(lengths):
        codes = (torch.arange(n) + i) % 20
        units = TokenSequence(codes[None, None], torch.tensor([n]), torch.full((1, n), 2))
        other = TokenSequence(torch.zeros(1, 1, 3, dtype=torch.long), torch.tensor([3]))
        rows.append(TokenRow(str(i), n * 0.04, {"units": units, "other": other}))
    write_shard(folder / "tokens-00000.parquet", rows, info)
    return Mixture((Source(str(folder)),)).open()


@pytest.fixture
def dataset(tmp_path: Path) -> MixtureDataset:
    return write(tmp_path / "a", [5, 9, 14, 3, 30, 8, 11, 6])


def epoch(batches: TokenBatches) -> list[list[Any]]:
    iterator, out = iter(batches), []
    while batches._sampler.epoch == 0 and (not out or batches._sampler.position < len(batches._sampler.plan.epoch(0))):
        out.append(next(iterator))
    return out


def rows_of(micro: Any) -> list[list[int]]:
    grid = micro["grid"]
    return [grid.values["units"][b, 0, : int(grid.lengths[b])].tolist() for b in range(len(grid))]


def test_an_epoch_has_every_utterance_once_with_its_end(dataset: MixtureDataset, lm: SpeechLM) -> None:
    found = [row for batch in epoch(TokenBatches(dataset, lm, max_tokens=60)) for m in batch for row in rows_of(m)]
    wanted = [[(i + t) % 20 for t in range(n)] + [20] for i, n in enumerate([5, 9, 14, 3, 30, 8, 11, 6])]
    assert sorted(found) == sorted(wanted)


def test_only_the_streams_of_the_layout_are_laid_out(dataset: MixtureDataset, lm: SpeechLM) -> None:
    grid = next(iter(TokenBatches(dataset, lm, max_tokens=60)))[0]["grid"]
    assert set(grid.positions) == {"units"}


def test_a_crop_does_not_end_where_it_was_cut(dataset: MixtureDataset, lm: SpeechLM) -> None:
    batches = TokenBatches(dataset, lm, max_tokens=60, max_length=10)
    found = [row for batch in epoch(batches) for m in batch for row in rows_of(m)]
    assert max(map(len, found)) <= 11
    for row in found:
        whole = [5, 9, 14, 3, 30, 8, 11, 6]
        ended = row[-1] == 20
        # What is shorter than the limit is whole, and ends. What is cut ends only if the cut is at its end.
        assert ended or len(row) == 10
        assert all((b - a) % 20 == 1 for a, b in pairwise(row) if b != 20)
    assert sum(row[-1] != 20 for row in found) >= 1
    assert len(found) == len(whole)


def test_seconds_and_tokens_are_those_of_the_batch(dataset: MixtureDataset, lm: SpeechLM) -> None:
    batches = epoch(TokenBatches(dataset, lm, max_tokens=60))
    micros = [m for batch in batches for m in batch]
    assert sum(m["tokens"] for m in micros) == 5 + 9 + 14 + 3 + 30 + 8 + 11 + 6 + 8
    assert sum(m["seconds"] for m in micros) == pytest.approx(86 * 0.04)
    halves = [m for b in epoch(TokenBatches(dataset, lm, max_tokens=60, max_length=10)) for m in b]
    assert sum(m["seconds"] for m in halves) == pytest.approx((5 + 9 + 10 + 3 + 10 + 8 + 10 + 6) * 0.04)


def test_micro_batches_are_the_batch_in_parts(dataset: MixtureDataset, lm: SpeechLM) -> None:
    whole = epoch(TokenBatches(dataset, lm, max_tokens=80))
    parts = epoch(TokenBatches(dataset, lm, max_tokens=80, micro_tokens=16))
    assert any(len(b) > 1 for b in parts)
    for a, b in zip(whole, parts, strict=True):
        assert [r for m in a for r in rows_of(m)] == [r for m in b for r in rows_of(m)]
        for micro in b:
            lengths = [len(row) - 1 for row in rows_of(micro)]
            assert len(lengths) == 1 or max(lengths) * len(lengths) <= 16
    objective = NextToken(lm)
    for a, b in zip(whole, parts, strict=True):
        one = objective.losses("model", a[0])["units"]
        many = torch.stack([objective.losses("model", m)["units"] for m in b]).sum()
        torch.testing.assert_close(one, many)
        assert objective.counts(a[0])["units"] == sum(objective.counts(m)["units"] for m in b)


def test_it_goes_on_where_it_stopped(dataset: MixtureDataset, lm: SpeechLM) -> None:
    first = TokenBatches(dataset, lm, max_tokens=40, seed=3)
    iterator = iter(first)
    next(iterator)
    next(iterator)
    second = TokenBatches(dataset, lm, max_tokens=40, seed=3)
    second.load_state_dict(first.state_dict())
    rest = iter(second)
    for _ in range(6):
        assert [rows_of(m) for m in next(iterator)] == [rows_of(m) for m in next(rest)]


def test_held_out_is_one_epoch_and_the_same_each_time(dataset: MixtureDataset, lm: SpeechLM) -> None:
    once, again = (held_out(TokenBatches(dataset, lm, max_tokens=40)) for _ in range(2))
    assert [rows_of(m) for m in once] == [rows_of(m) for m in again]
    assert sum(len(m["grid"]) for m in once) == 8
    assert len(held_out(TokenBatches(dataset, lm, max_tokens=40), most=2)) == 2


def test_weights_of_streams(lm: SpeechLM) -> None:
    assert NextToken(lm).weights == {"units": 1.0}
    assert NextToken(lm, {"units": 0.5, "absent": 2.0}).weights == {"units": 0.5}
    assert NextToken(lm).modules("model") == [lm]
