import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lalia.data import Manifest, ShardWriter, StreamInfo, TokenDataset, TokenRow, Utterance, collate, write_shard
from lalia.data.shards import read_header, shard_name
from lalia.errors import DataError, OutputError
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence


def _info(kind: Discrete | Continuous, sha: str = "a" * 64, deduplicated: bool = False) -> StreamInfo:
    spec = StreamSpec(kind=kind, frame_rate=50.0, deduplicated=deduplicated)
    return StreamInfo(spec, "Test", sha, {"type": "lalia.tokenizers.Test", "layer": 6})


def _codes(length: int, kind: Discrete, rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, kind.codebook_size, (1, kind.num_codebooks, length)))


def _unit_rows(n: int, seed: int = 0, size: int = 100) -> list[TokenRow]:
    rng = np.random.default_rng(seed)
    kind = Discrete(size)
    rows = []
    for i in range(n):
        length = int(rng.integers(1, 40))
        units = TokenSequence(_codes(length, kind, rng), torch.tensor([length]))
        rows.append(TokenRow(f"u{seed}-{i}", length / 50, {"units": units}, speaker=f"s{i % 7}"))
    return rows


def _same(a: TokenSequence, b: TokenSequence) -> bool:
    def equal(x: torch.Tensor | None, y: torch.Tensor | None) -> bool:
        return (x is None and y is None) or (x is not None and y is not None and x.equal(y))

    return all(equal(getattr(a, f), getattr(b, f)) for f in ("values", "lengths", "durations", "times"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=150),
    num_codebooks=st.integers(1, 8),
    codebook_size=st.sampled_from([2, 1024, 65_535, 65_536, 151_936]),
    dim=st.integers(1, 9),
    timed=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_rows_come_back_as_they_were(
    tmp_path: Path, lengths: list[int], num_codebooks: int, codebook_size: int, dim: int, timed: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    codes, units = Discrete(codebook_size, num_codebooks), Discrete(codebook_size)
    info = {"llm.codes": _info(codes), "llm": _info(units, deduplicated=True), "mel": _info(Continuous(dim))}
    rows = []
    for i, n in enumerate(lengths):
        durations = torch.from_numpy(rng.integers(1, 70_000, (1, n)))
        times = torch.from_numpy(rng.random((1, n), dtype=np.float32)) if timed else None
        features = torch.from_numpy(rng.standard_normal((1, n, dim)).astype(np.float16)).float()
        length = torch.tensor([n])
        streams = {
            "llm.codes": TokenSequence(_codes(n, codes, rng), length, times=times),
            "llm": TokenSequence(_codes(n, units, rng), length, durations),
            "mel": TokenSequence(features, length),
        }
        rows.append(TokenRow(f"ü{i}", n / 50, streams, *("x" if i % 2 else None for _ in range(3))))
    path = write_shard(tmp_path / "s.parquet", rows, info, note={"a": [1, "é"]})
    first = path.read_bytes()
    assert write_shard(path, rows, info, note={"a": [1, "é"]}).read_bytes() == first
    header = read_header(path)
    assert (header.num_rows, header.streams, header.note) == (len(rows), info, {"a": [1, "é"]})

    dataset = TokenDataset(path, cache_bytes=1)
    assert dataset.specs == {name: i.spec for name, i in info.items()}
    assert dataset.identity == dict.fromkeys(info, "a" * 64)
    assert dataset.ids == [r.id for r in rows]
    for name in info:
        assert dataset.lengths(name).tolist() == lengths
    for i in rng.permutation(len(rows)):
        row, back = rows[i], dataset[int(i)]
        assert (back.id, back.seconds, back.speaker, back.text, back.language) == (
            (row.id, row.seconds, row.speaker, row.text, row.language)
        )
        assert list(back.streams) == list(info)
        for name in info:
            assert _same(back.streams[name], row.streams[name])


def test_other_programs_can_read_a_shard(tmp_path: Path) -> None:
    values = torch.tensor([[[1, 2, 3], [4, 5, 6]]])
    row = TokenRow("u", 0.06, {"codes": TokenSequence(values, torch.tensor([3]))}, text="hi")
    table = pq.read_table(write_shard(tmp_path / "s.parquet", [row], {"codes": _info(Discrete(1024, 2))}))
    assert table.schema.field("codes").type == pa.list_(pa.uint16())
    (data,) = table.to_pylist()
    # The codes of a frame lie beside each other.
    assert data["codes"] == [1, 4, 2, 5, 3, 6]
    assert (data["id"], data["text"], data["speaker"], data["codes/length"]) == ("u", "hi", None, 3)


def test_ids_take_the_bytes_they_need(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        TokenRow(f"u{i}", 10.0, {"units": TokenSequence(_codes(500, Discrete(200), rng), torch.tensor([500]))})
        for i in range(200)
    ]
    path = write_shard(tmp_path / "s.parquet", rows, {"units": _info(Discrete(200))})
    assert path.stat().st_size < 1.25 * 200 * 500  # 8 bits each, where a plain column takes 32


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (
            TokenSequence(torch.tensor([[[0, 100]]]), torch.tensor([2])),
            "codes from 0 to 100 where the codebook has 100",
        ),
        (TokenSequence(torch.tensor([[[-1, 3]]]), torch.tensor([2])), "codes from -1 to 3"),
        (TokenSequence(torch.zeros(1, 2, 3, dtype=torch.long), torch.tensor([3])), "not codes of 1 codebooks"),
        (TokenSequence(torch.zeros(1, 3, 1), torch.tensor([3])), "not codes of 1 codebooks"),
        (TokenSequence(torch.zeros(2, 1, 3, dtype=torch.long), torch.tensor([3, 3])), "has 2 rows"),
        (
            TokenSequence(torch.zeros(1, 1, 3, dtype=torch.long), torch.tensor([3]), torch.ones(1, 3).long()),
            "has durations or times where the others have none",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, tokens: TokenSequence, message: str) -> None:
    rows = [*_unit_rows(2), TokenRow("odd", 1.0, {"units": tokens})]
    with pytest.raises(DataError, match=message) as error:
        write_shard(tmp_path / "s.parquet", rows, {"units": _info(Discrete(100))})
    assert "'odd'" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_features_must_fit_in_16_bits(tmp_path: Path) -> None:
    info = {"mel": _info(Continuous(2))}
    for value in (float("nan"), 1e6):
        tokens = TokenSequence(torch.full((1, 3, 2), value), torch.tensor([3]))
        with pytest.raises(DataError, match="not finite in 16 bits"):
            write_shard(tmp_path / "s.parquet", [TokenRow("u", 1.0, {"mel": tokens})], info)
    tokens = TokenSequence(torch.zeros(1, 3, 4), torch.tensor([3]))
    with pytest.raises(DataError, match="not features of 2 values"):
        write_shard(tmp_path / "s.parquet", [TokenRow("u", 1.0, {"mel": tokens})], info)
    with pytest.raises(DataError, match=r"has the streams \['units'\]"):
        write_shard(tmp_path / "s.parquet", _unit_rows(1), info)
    with pytest.raises(OutputError):
        write_shard(tmp_path / "none" / "s.parquet", [], info)


@pytest.fixture
def shards(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, rows: list[TokenRow], sha: str = "a" * 64, max_rows: int = 100, size: int = 100) -> Path:
        with ShardWriter(tmp_path / name, {"units": _info(Discrete(size), sha)}, max_rows=max_rows) as writer:
            for row in rows:
                writer.write(row)
        return tmp_path / name

    return write


def test_several_shards_are_one_sequence(shards: Callable[..., Path]) -> None:
    rows = _unit_rows(1000)
    folder = shards("d", rows, max_rows=130)
    assert sorted(p.name for p in folder.iterdir()) == [shard_name(i) for i in range(8)]
    dataset = TokenDataset(folder)
    assert len(dataset) == 1000
    assert dataset.lengths("units").tolist() == [r.streams["units"].num_tokens for r in rows]
    assert dataset.seconds.tolist() == [r.seconds for r in rows]
    order = np.random.default_rng(1).permutation(1000).tolist()
    with ThreadPoolExecutor(4) as pool:
        for i, back in zip(order, pool.map(dataset.__getitem__, order), strict=True):
            assert back.id == rows[i].id
            assert _same(back.streams["units"], rows[i].streams["units"])
    assert dataset[-1].id == rows[-1].id
    with pytest.raises(IndexError):
        dataset[1000]
    # A worker process gets the names of the files, not the open files.
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy[7].id == rows[7].id
    assert [r.id for r in TokenDataset([folder / shard_name(2), folder / shard_name(0)])][:1] == [rows[260].id]


def test_writing_into_shards_that_are_there_is_refused(shards: Callable[..., Path]) -> None:
    shards("d", _unit_rows(3))
    with pytest.raises(DataError, match="already holds token shards"):
        shards("d", _unit_rows(3))


def test_a_writer_that_fails_writes_no_part(tmp_path: Path) -> None:
    def rows() -> Iterator[TokenRow]:
        yield from _unit_rows(3)
        raise ZeroDivisionError

    def write() -> None:
        with ShardWriter(tmp_path / "d", {"units": _info(Discrete(100))}) as writer:
            for row in rows():
                writer.write(row)

    with pytest.raises(ZeroDivisionError):
        write()
    assert list((tmp_path / "d").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made a folder"):
        ShardWriter(tmp_path / "file", {})


def test_parts(shards: Callable[..., Path]) -> None:
    rows = _unit_rows(300)
    dataset = TokenDataset(shards("d", rows, max_rows=110))
    part = dataset.select([299, 5, 120])
    assert part.ids == [rows[i].id for i in (299, 5, 120)]
    assert [part[i].id for i in range(3)] == part.ids
    assert part.lengths("units").tolist() == [rows[i].streams["units"].num_tokens for i in (299, 5, 120)]
    assert part.select([1]).ids == [rows[5].id]

    fractions = {"train": 0.6, "dev": 0.4}
    manifest = Manifest(Utterance(r.id, Path("x"), duration=1.0, speaker=r.speaker) for r in rows)
    for name, expected in manifest.split(fractions=fractions, seed=3).items():
        assert dataset.split(name, fractions, seed=3).ids == [u.id for u in expected]
        assert len(expected)
    with pytest.raises(DataError, match="no split 'tran'"):
        dataset.split("tran")


def test_a_batch_of_rows(shards: Callable[..., Path]) -> None:
    dataset = TokenDataset(shards("d", _unit_rows(5)))
    rows = [dataset[i] for i in (3, 1, 4)]
    batch = collate(rows)["units"]
    assert batch.lengths.tolist() == dataset.lengths("units")[[3, 1, 4]].tolist()
    for b, row in enumerate(rows):
        assert _same(batch.row(b), row.streams["units"])


def test_tokens_of_different_tokenizers_do_not_mix(shards: Callable[..., Path], tmp_path: Path) -> None:
    a = shards("a", _unit_rows(3), "a" * 64) / shard_name(0)
    b = shards("b", _unit_rows(3, 1), "b" * 64) / shard_name(0)
    c = shards("c", _unit_rows(3, 2), "a" * 64, size=200) / shard_name(0)
    for other, why in ((b, r"Test \(bbbbbbbbbbbb\)"), (c, r"Test \(aaaaaaaaaaaa\)")):
        with pytest.raises(DataError, match=rf"Stream 'units' of .* was made by {why}"):
            TokenDataset([a, other])
    row = TokenRow("m", 1.0, {"mel": TokenSequence(torch.zeros(1, 3, 2), torch.tensor([3]))})
    mel = write_shard(tmp_path / "m.parquet", [row], {"mel": _info(Continuous(2))})
    with pytest.raises(DataError, match=r"has the streams \['mel'\]"):
        TokenDataset([a, mel])
    with pytest.raises(DataError, match="no stream 'mel'"):
        TokenDataset(a, streams=["mel"])
    with pytest.raises(DataError, match="no stream 'mel'"):
        TokenDataset(a).lengths("mel")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, -8])
def test_a_truncated_shard_is_named(shards: Callable[..., Path], keep: float) -> None:
    folder = shards("d", _unit_rows(300), max_rows=100)
    path = folder / shard_name(1)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep) if keep < 0 else int(len(data) * keep)])
    with pytest.raises(DataError, match=r"tokens-00001\.parquet is damaged .*Delete it and tokenize again") as error:
        TokenDataset(folder)
    assert "\n" not in str(error.value)


def test_flipped_bits_never_come_back_as_tokens(shards: Callable[..., Path]) -> None:
    rows = _unit_rows(100)
    folder = shards("d", rows)
    path = folder / shard_name(0)
    data = path.read_bytes()
    detected = 0
    for place in np.linspace(4, len(data) - 9, 60).astype(int).tolist():
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :])
        try:
            dataset = TokenDataset(folder)
            back = [dataset[i] for i in range(len(dataset))]
        except DataError as error:
            detected += shard_name(0) in str(error)
            continue
        # Bits that no reader looks at (statistics, the name of the writing library) may flip unseen.
        assert [b.id for b in back] == [r.id for r in rows]
        assert all(_same(b.streams["units"], r.streams["units"]) for b, r in zip(back, rows, strict=True))
    assert detected > 30  # most of a shard is data


def test_what_is_no_token_shard(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        TokenDataset(tmp_path / "none")
    with pytest.raises(DataError, match="does not exist"):
        TokenDataset([tmp_path / "none.parquet"])
    with pytest.raises(DataError, match="holds no token shards"):
        TokenDataset(tmp_path)
    with pytest.raises(DataError, match="No token shards were named"):
        TokenDataset([])
    pq.write_table(pa.table({"x": [1]}), tmp_path / "tokens-00000.parquet")
    with pytest.raises(DataError, match="Parquet but not a token shard"):
        TokenDataset(tmp_path)
    schema = pa.schema([("x", pa.int64())], metadata={b"lalia": b'{"version": 99}'})
    pq.write_table(pa.table({"x": [1]}, schema=schema), tmp_path / "tokens-00000.parquet")
    with pytest.raises(DataError, match="has format 99"):
        TokenDataset(tmp_path)


def test_a_folder_that_lacks_a_shard_is_refused(tmp_path: Path) -> None:
    for i in (0, 2):
        write_shard(tmp_path / shard_name(i), _unit_rows(2, i), {"units": _info(Discrete(100))}, note={"shards": 3})
    with pytest.raises(DataError, match=r"has 2 of its 3 shards \(tokens-00001\.parquet is missing\)"):
        TokenDataset(tmp_path)
    assert len(TokenDataset(sorted(tmp_path.iterdir()))) == 4


def test_an_empty_shard_among_others(tmp_path: Path) -> None:
    info = {"units": _info(Discrete(100))}
    for i, n in enumerate((0, 3, 0, 2)):
        write_shard(tmp_path / shard_name(i), _unit_rows(n, i), info)
    dataset = TokenDataset(tmp_path)
    assert [dataset[i].id for i in range(5)] == dataset.ids == ["u1-0", "u1-1", "u1-2", "u3-0", "u3-1"]
