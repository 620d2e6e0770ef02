from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lalia.config import from_dict, override
from lalia.data import BatchPlan, Mixture, ShardWriter, Source, StreamInfo, TokenRow
from lalia.errors import ConfigError, DataError
from lalia.streams import Discrete, StreamSpec, TokenSequence


@pytest.fixture
def tokens(tmp_path: Path) -> Callable[..., str]:
    def write(name: str, n: int, sha: str = "a" * 64) -> str:
        info = StreamInfo(StreamSpec(kind=Discrete(100), frame_rate=50.0), "Test", sha)
        with ShardWriter(tmp_path / name, {"units": info}, max_rows=40) as writer:
            for i in range(n):
                units = TokenSequence(torch.full((1, 1, i % 9 + 1), i % 100), torch.tensor([i % 9 + 1]))
                writer.write(TokenRow(f"{name}{i}", 1.0, {"units": units}, speaker=f"{name}{i // 2}"))
        return str(tmp_path / name)

    return write


def test_one_source_is_its_data(tokens: Callable[..., str]) -> None:
    data = Mixture((Source(tokens("a", 97)),)).open()
    assert len(data) == 97
    for epoch in range(3):
        assert sorted(data.draw(epoch).tolist()) == list(range(97))
    assert data.draw(0).tolist() != data.draw(1).tolist()
    assert data.lengths("units").tolist() == [i % 9 + 1 for i in range(97)]
    assert (data.identity, list(data.specs)) == ({"units": "a" * 64}, ["units"])


def test_plain_sources_are_seen_once_each(tokens: Callable[..., str]) -> None:
    data = Mixture((Source(tokens("a", 31)), Source(tokens("b", 100)), Source(tokens("c", 7)))).open()
    assert sorted(data.draw(0).tolist()) == list(range(138))
    assert [data[i].id for i in (0, 30, 31, 130, 131, -1)] == ["a0", "a30", "b0", "b99", "c0", "c6"]
    assert data.seconds.tolist() == [1.0] * 138
    with pytest.raises(IndexError):
        data[138]


def test_weights_and_temperature(tokens: Callable[..., str]) -> None:
    a, b = tokens("a", 30), tokens("b", 90)
    for weights, temperature, size, expected in [
        ((1.0, 1.0), 1.0, 1000, [250, 750]),
        ((3.0, 1.0), 1.0, 1000, [500, 500]),
        ((1.0, 1.0), 2.0, 1000, [366, 634]),
        ((1.0, 1.0), 1e9, 1001, [500, 501]),
        ((3.0, 1.0), 1.0, None, [60, 60]),
    ]:
        sources = (Source(a, weights[0]), Source(b, weights[1]))
        data = Mixture(sources, temperature=temperature, size=size).open()
        assert data.counts == expected
        drawn = data.draw(4)
        assert [int((drawn < 30).sum()), int((drawn >= 30).sum())] == expected


def test_no_utterance_of_a_source_is_ahead_of_another(tokens: Callable[..., str]) -> None:
    data = Mixture((Source(tokens("a", 30), 2.5), Source(tokens("b", 50))), size=37).open()
    seen: Counter[int] = Counter()
    for epoch in range(23):
        drawn = data.draw(epoch)
        # Every stretch of an epoch has the sources in their shares.
        share = np.cumsum(drawn < 30) - np.arange(1, 38) * data.counts[0] / 37
        assert np.abs(share).max() <= 1
        seen.update(drawn.tolist())
        for part in (range(30), range(30, 80)):
            counts = [seen[i] for i in part]
            assert max(counts) - min(counts) <= 1
    assert sum(seen.values()) == 23 * 37


def test_a_mixture_in_batches(tokens: Callable[..., str]) -> None:
    data = Mixture((Source(tokens("a", 30), 4.0), Source(tokens("b", 50)))).open()
    plan = BatchPlan(data.lengths("units"), 40, draw=data.draw)
    for epoch in range(3):
        indices = [i for batch in plan.epoch(epoch) for i in batch.indices]
        assert sorted(indices) == sorted(data.draw(epoch).tolist())
    other = Mixture((Source(data.mixture.sources[0].path, 5.0), data.mixture.sources[1])).open()
    assert BatchPlan(other.lengths("units"), 40, draw=other.draw).fingerprint != plan.fingerprint


def test_only_scattered_speakers_are_in_several_splits(tokens: Callable[..., str]) -> None:
    path = tokens("a", 600)
    voices = tuple(f"a{i}" for i in range(100))
    speakers = []
    for name in ("train", "dev", "test"):
        data = Mixture((Source(path, split=name),), scattered=voices).open()
        speakers.append({data[i].speaker for i in range(len(data))})
    shared = speakers[0] & speakers[1] | speakers[0] & speakers[2] | speakers[1] & speakers[2]
    assert shared
    assert shared <= set(voices)


def test_splits_of_a_mixture_are_disjoint(tokens: Callable[..., str]) -> None:
    path = tokens("a", 300)
    ids = {}
    for name in ("train", "dev", "test"):
        data = Mixture((Source(path, split=name),)).open()
        ids[name] = {data[i].id for i in range(len(data))}
    assert len(ids["train"] | ids["dev"] | ids["test"]) == sum(map(len, ids.values())) == 300
    with pytest.raises(DataError, match="no split 'valid'"):
        Mixture((Source(path, split="valid"),)).open()
    with pytest.raises(DataError, match=r"split 'none' of .* has no utterances"):
        Mixture((Source(path, split="none"),), fractions={"all": 1.0, "none": 0.0}).open()


def test_sources_must_agree(tokens: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=r"b holds units of Test \(bbbbbbbbbbbb\) but .*a holds"):
        Mixture((Source(tokens("a", 3)), Source(tokens("b", 3, "b" * 64)))).open()


def test_a_mixture_is_configuration() -> None:
    mixture = Mixture((Source("a", 2.0), Source("b", split="train")), temperature=3.0)
    data = mixture.to_dict()
    assert data["type"] == "lalia.data.Mixture"
    assert from_dict(data) == mixture
    assert override(mixture, "sources.1.weight", "0.5").sources[1].weight == 0.5


def test_wrong_mixtures() -> None:
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="has the weight"):
            Source("a", weight)
    one = (Source("a"),)
    with pytest.raises(ConfigError, match="no sources"):
        Mixture(())
    for options in ({"temperature": 0.0}, {"size": 0}, {"seed": -1}):
        with pytest.raises(ConfigError):
            Mixture(one, **options)
