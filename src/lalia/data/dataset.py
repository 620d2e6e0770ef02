"""Token shards as one sequence of utterances with random access."""

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from lalia.data.manifest import SPLITS, split_of
from lalia.data.shards import Header, StreamInfo, TokenRow, column_of, damaged, read_header, shard_name
from lalia.errors import DataError
from lalia.streams import Continuous, Streams, StreamSpec, TokenSequence, pad_batch

__all__ = ["TokenDataset", "collate"]

_OPEN_FILES = 128


def collate(rows: Sequence[TokenRow]) -> Streams:
    """The streams of several utterances as one batch, padded with zeros."""
    return {name: pad_batch([row.streams[name] for row in rows]) for name in rows[0].streams}


@dataclass(frozen=True)
class _Column:
    """Lists as one array and where each begins; ``values`` [n] or [n, D]."""

    values: np.ndarray
    offsets: np.ndarray

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]


class TokenDataset:
    """Utterances as tokens, read from the disk when they are asked for.

    Threads and worker processes may share one: each process opens the files for itself.

    :param source: a folder of shards, one shard, or several shards.
    :param streams: the streams to read; all when not given.
    :param cache_bytes: how much of what was decoded to keep in memory.
    :raises DataError: no shards, a shard that is missing or damaged, or shards of different tokenizers.
    """

    def __init__(
        self,
        source: str | Path | Sequence[str | Path],
        *,
        streams: Sequence[str] | None = None,
        cache_bytes: int = 512 << 20,
    ) -> None:
        self.paths = _shards(source)
        headers = [read_header(path) for path in self.paths]
        if isinstance(source, str | Path):
            _check_complete(Path(source), self.paths, headers)
        _check_same(self.paths, headers)
        held = headers[0].streams
        for name in streams or ():
            if name not in held:
                raise DataError(f"{self.paths[0].parent} has no stream {name!r}. It has {', '.join(held)}.")
        self.info: dict[str, StreamInfo] = {n: i for n, i in held.items() if streams is None or n in streams}
        self.cache_bytes = cache_bytes
        self._starts = np.cumsum([0, *(h.num_rows for h in headers)])
        self._rows = np.arange(self._starts[-1])
        self._prepare()

    def _prepare(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[int, tuple[pq.ParquetFile, np.ndarray]] = OrderedDict()
        self._cache: OrderedDict[tuple[int, int], tuple[dict[str, Any], int]] = OrderedDict()
        self._cached = 0

    def __getstate__(self) -> dict[str, Any]:
        """Without open files, which another process cannot use."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_files", "_cache", "_cached")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    # -- facts --------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"TokenDataset({len(self)} utterances, {', '.join(f'{n}: {i}' for n, i in self.info.items())})"

    @property
    def specs(self) -> dict[str, StreamSpec]:
        """What each stream holds."""
        return {name: info.spec for name, info in self.info.items()}

    @property
    def identity(self) -> dict[str, str]:
        """The SHA-256 of the tokenizer of each stream."""
        return {name: info.sha256 for name, info in self.info.items()}

    def lengths(self, stream: str) -> Tensor:
        """Tokens of each utterance, [len(self)] int64; the tokens themselves stay on disk.

        :raises DataError: there is no such stream, or a shard is damaged.
        """
        if stream not in self.info:
            raise DataError(f"There is no stream {stream!r}. There is {', '.join(self.info)}.")
        return torch.from_numpy(np.array(self._column(f"{stream}/length"), np.int64)[self._rows])

    @property
    def seconds(self) -> Tensor:
        """Length of each utterance in seconds, [len(self)] float64."""
        return torch.from_numpy(np.array(self._column("seconds"), np.float64)[self._rows])

    @property
    def ids(self) -> list[str]:
        """The id of each utterance."""
        column = self._column("id")
        return [column[i] for i in self._rows]

    @property
    def speakers(self) -> list[str | None]:
        """The speaker of each utterance, None where unknown."""
        column = self._column("speaker")
        return [column[i] for i in self._rows]

    def _column(self, name: str) -> list[Any]:
        found: list[Any] = []
        for path in self.paths:
            try:
                found += pq.read_table(path, columns=[name], memory_map=True, use_threads=False, **_CHECK)[
                    name
                ].to_pylist()
            except (pa.ArrowException, OSError, KeyError) as error:
                raise damaged(path, error) from None
        return found

    # -- parts --------------------------------------------------------------------------------------

    def select(self, rows: Sequence[int] | np.ndarray) -> "TokenDataset":
        """The given utterances, in that order, over the same files."""
        part = object.__new__(TokenDataset)
        part.__setstate__({**self.__getstate__(), "_rows": self._rows[np.asarray(rows, dtype=np.int64)]})
        return part

    def split(
        self, name: str, fractions: Mapping[str, float] = SPLITS, seed: int = 0, *, scattered: Collection[str] = ()
    ) -> "TokenDataset":
        """One of the disjoint parts that ``Manifest.split`` makes of the same utterances by speaker.

        :param scattered: speakers whose utterances fall to all parts.
        :raises DataError: there is no part of that name, or the shares do not sum to 1.
        """
        if name not in fractions:
            raise DataError(f"There is no split {name!r}. There is {', '.join(fractions)}.")
        pairs = zip(self.ids, self.speakers, strict=True)
        keys = [id_ if speaker is None or speaker in scattered else speaker for id_, speaker in pairs]
        return self.select([i for i, key in enumerate(keys) if split_of(key, fractions, seed) == name])

    # -- rows ---------------------------------------------------------------------------------------

    def __getitem__(self, i: int) -> TokenRow:
        """Utterance ``i``: codes are int64, features float32.

        :raises DataError: the shard is damaged; names the file.
        """
        row = int(self._rows[i])
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        group, within = self._group(shard, row - int(self._starts[shard]))
        streams = {name: _sequence(group, name, info.spec, within) for name, info in self.info.items()}
        return TokenRow(
            streams=streams, **{n: group[n][within] for n in ("id", "seconds", "speaker", "text", "language")}
        )

    def _group(self, shard: int, row: int) -> tuple[dict[str, Any], int]:
        """The decoded row group that holds a row of a shard, and the row's place in it."""
        # A ParquetFile has one position for all threads.
        with self._lock:
            file, starts = self._open(shard)
            number = int(np.searchsorted(starts, row, side="right")) - 1
            key = (shard, number)
            if key in self._cache:
                self._cache.move_to_end(key)
            else:
                columns, size = self._decode(file, shard, number)
                self._cache[key] = columns, size
                self._cached += size
                while self._cached > self.cache_bytes and len(self._cache) > 1:
                    self._cached -= self._cache.popitem(last=False)[1][1]
            return self._cache[key][0], row - int(starts[number])

    def _open(self, shard: int) -> tuple[pq.ParquetFile, np.ndarray]:
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        try:
            file = pq.ParquetFile(self.paths[shard], memory_map=True, **_CHECK)
        except (pa.ArrowException, OSError) as error:
            raise damaged(self.paths[shard], error) from None
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        self._files[shard] = file, np.cumsum([0, *sizes])
        if len(self._files) > _OPEN_FILES:
            self._files.popitem(last=False)[1][0].close()
        return self._files[shard]

    def _decode(self, file: pq.ParquetFile, shard: int, number: int) -> tuple[dict[str, Any], int]:
        names = ["id", "seconds", "speaker", "text", "language"]
        for name in self.info:
            names += [
                n for n in (column_of(name), f"{name}/durations", f"{name}/times") if n in file.schema_arrow.names
            ]
        try:
            table = file.read_row_group(number, columns=names, use_threads=False)
            table.validate()
        except (pa.ArrowException, OSError) as error:
            raise damaged(self.paths[shard], error) from None
        lists = {n for n in names if pa.types.is_list(table.schema.field(n).type)}
        return {n: _lists(table[n]) if n in lists else table[n].to_pylist() for n in names}, table.nbytes


_CHECK: dict[str, Any] = {"page_checksum_verification": True}


def _lists(column: pa.ChunkedArray) -> _Column:
    array = column.combine_chunks()
    offsets = array.offsets.to_numpy()
    values = array.values
    if pa.types.is_fixed_size_list(values.type):
        width = values.type.list_size
        return _Column(values.flatten().to_numpy(zero_copy_only=False).reshape(-1, width), offsets)
    return _Column(values.to_numpy(zero_copy_only=False), offsets)


def _sequence(group: Mapping[str, Any], name: str, spec: StreamSpec, i: int) -> TokenSequence:
    x = group[column_of(name)][i]
    if isinstance(spec.kind, Continuous):
        values = torch.from_numpy(x.astype(np.float32))[None]
        length = values.shape[1]
    else:
        values = torch.from_numpy(x.astype(np.int64).reshape(-1, spec.kind.num_codebooks).T.copy())[None]
        length = values.shape[2]
    durations, times = group.get(f"{name}/durations"), group.get(f"{name}/times")
    return TokenSequence(
        values,
        torch.tensor([length]),
        None if durations is None else torch.from_numpy(durations[i].astype(np.int64))[None],
        None if times is None else torch.from_numpy(times[i].astype(np.float32))[None],
    )


def _shards(source: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(source, str | Path):
        paths = [Path(p) for p in source]
        if not paths:
            raise DataError("No token shards were named. Name the folder that 'lalia tokenize' wrote.")
        return paths
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.exists():
        raise DataError(f"{path} does not exist. Check the path.")
    found = sorted(path.glob("tokens-*.parquet"), key=lambda p: (len(p.name), p.name))
    if not found:
        raise DataError(f"{path} holds no token shards. Make them: lalia tokenize RECORDINGS -o {path}")
    return found


def _check_complete(source: Path, paths: Sequence[Path], headers: Sequence[Header]) -> None:
    """A folder that is still being written, or that lost a shard, is not the data set it seems to be."""
    total = headers[0].note.get("shards")
    if source.is_file() or total is None:
        return
    missing = sorted({shard_name(i) for i in range(total)} - {p.name for p in paths})
    if missing:
        raise DataError(
            f"{source} has {total - len(missing)} of its {total} shards ({missing[0]} is missing). "
            "Run 'lalia tokenize' again: only what is missing is made."
        )


def _check_same(paths: Sequence[Path], headers: Sequence[Header]) -> None:
    first = headers[0]
    for path, header in zip(paths, headers, strict=True):
        if set(header.streams) != set(first.streams):
            raise DataError(
                f"{path} has the streams {sorted(header.streams)} but {paths[0]} has {sorted(first.streams)}. "
                "Put them in folders of their own."
            )
        for name, info in header.streams.items():
            expected = first.streams[name]
            if (info.sha256, info.spec) != (expected.sha256, expected.spec):
                raise DataError(
                    f"Stream {name!r} of {path} was made by {info}, that of {paths[0]} by {expected}. "
                    "Tokenize both with the same tokenizer."
                )
