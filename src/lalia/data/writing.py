"""Writing token shards."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lalia.data.shards import StreamInfo, TokenRow, code_type, column_of, make_folder, schema_of, shard_name
from lalia.errors import DataError, OutputError
from lalia.files import atomic_write
from lalia.streams import Continuous, StreamSpec, TokenSequence

__all__ = ["ShardWriter", "write_shard"]

# Reading one row decodes its whole row group: 64 rows of units take 0.4 ms.
_GROUP_ROWS = 64
_GROUP_BYTES = 8 << 20


def _fields(row: TokenRow, streams: Mapping[str, StreamInfo], timed: set[str]) -> dict[str, Any]:
    """The row's values by column; sequences as numpy arrays."""
    if set(row.streams) != set(streams):
        raise DataError(f"Utterance {row.id!r} has the streams {sorted(row.streams)}. Give {sorted(streams)}.")
    values: dict[str, Any] = {
        "id": row.id,
        "speaker": row.speaker,
        "text": row.text,
        "language": row.language,
        "seconds": row.seconds,
    }
    for name, info in streams.items():
        tokens = row.streams[name]
        where = f"Utterance {row.id!r}, stream {name!r}"
        if len(tokens) != 1:
            raise DataError(f"{where} has {len(tokens)} rows. Write one utterance at a time.")
        tokens = tokens.row(0)
        values[column_of(name)] = _checked_values(tokens, info.spec, where)
        values[f"{name}/length"] = tokens.num_tokens
        if (tokens.durations is not None) != info.spec.deduplicated or (tokens.times is not None) != (name in timed):
            raise DataError(f"{where} has durations or times where the others have none. Tokenize all of them alike.")
        if tokens.durations is not None:
            values[f"{name}/durations"] = tokens.durations[0].cpu().numpy().astype(np.uint32)
        if tokens.times is not None:
            values[f"{name}/times"] = tokens.times[0].cpu().numpy().astype(np.float32)
    return values


def _checked_values(tokens: TokenSequence, spec: StreamSpec, where: str) -> np.ndarray:
    x = tokens.values[0].cpu()
    if isinstance(spec.kind, Continuous):
        if tokens.discrete or x.shape[1] != spec.kind.dim:
            raise DataError(f"{where} is not features of {spec.kind.dim} values. Correct the spec of its tokenizer.")
        features = x.half().numpy()
        if not np.isfinite(features).all():
            raise DataError(f"{where} has features that are not finite in 16 bits. Scale them or check the encoder.")
        return features
    if not tokens.discrete or x.shape[0] != spec.kind.num_codebooks:
        raise DataError(f"{where} is not codes of {spec.kind.num_codebooks} codebooks. Correct the tokenizer's spec.")
    size = max(spec.kind.codebook_size, 0 if spec.kind.end is None else spec.kind.end + 1)
    if x.numel() and not 0 <= int(x.min()) <= int(x.max()) < size:
        raise DataError(
            f"{where} has codes from {int(x.min())} to {int(x.max())} where the codebook has "
            f"{size}. Correct the spec of its tokenizer."
        )
    return x.T.numpy().astype(code_type(spec.kind)).reshape(-1)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    offsets = pa.array(np.cumsum([0, *(len(v) for v in values)]), pa.int32())
    joined = np.concatenate([v.reshape(-1) for v in values])
    inner = kind.value_type
    if pa.types.is_fixed_size_list(inner):
        return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(pa.array(joined), type=inner))
    return pa.ListArray.from_arrays(offsets, pa.array(joined, inner))


def write_shard(
    path: str | Path,
    rows: Iterable[TokenRow],
    streams: Mapping[str, StreamInfo],
    *,
    note: Mapping[str, Any] | None = None,
) -> Path:
    """Write one shard, whole or not at all; the same rows give the same bytes.

    :param note: JSON data to keep in the header.
    :raises DataError: a row that does not fit the streams.
    :raises OutputError: the folder does not exist or cannot be written.
    """
    target = Path(path)
    rows = list(rows)
    timed = {name for name in streams if rows and name in rows[0].streams and rows[0].streams[name].times is not None}
    schema = schema_of(streams, timed, note or {})
    # Dictionaries pack codes to the bits they need; features and times hardly repeat.
    packed = [c for c, t in zip(schema.names, schema.types, strict=True) if _packs(t)]
    with atomic_write(target) as temporary:
        try:
            with pq.ParquetWriter(
                temporary,
                schema,
                compression="zstd",
                use_dictionary=[f"{c}.list.element" if pa.types.is_list(schema.field(c).type) else c for c in packed],
                write_page_checksum=True,
            ) as writer:
                for group in _groups(rows, streams, timed):
                    arrays = [_array([row[n] for row in group], schema.field(n).type) for n in schema.names]
                    writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=len(group))
        except OSError as error:
            raise OutputError(f"{target} cannot be written ({error}). Make room or choose another folder.") from None
    return target


def _packs(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_list(kind) else kind
    return pa.types.is_integer(inner) or pa.types.is_string(inner)


def _groups(
    rows: Sequence[TokenRow], streams: Mapping[str, StreamInfo], timed: set[str]
) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        values = _fields(row, streams, timed)
        group.append(values)
        size += sum(v.nbytes for v in values.values() if isinstance(v, np.ndarray))
        if len(group) == _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


class ShardWriter:
    """Rows to shards ``tokens-00000.parquet``, ``tokens-00001.parquet``, ... of a bounded size.

    Use it as a context manager: what is left is written at the end, unless the block raised.

    :param folder: made if it does not exist.
    :param max_rows: rows per shard at most.
    :param max_bytes: bytes of values per shard, roughly, before compression.
    """

    def __init__(
        self,
        folder: str | Path,
        streams: Mapping[str, StreamInfo],
        *,
        max_rows: int = 4096,
        max_bytes: int = 256 << 20,
    ) -> None:
        self.folder = make_folder(folder)
        if next(self.folder.glob("tokens-*.parquet"), None) is not None:
            raise DataError(f"{self.folder} already holds token shards. Choose an empty folder.")
        self.streams = dict(streams)
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.paths: list[Path] = []
        self._rows: list[TokenRow] = []
        self._bytes = 0

    def write(self, row: TokenRow) -> None:
        """Add a row; a shard that is full goes to disk."""
        self._rows.append(row)
        self._bytes += sum(s.values.nbytes for s in row.streams.values())
        if len(self._rows) >= self.max_rows or self._bytes >= self.max_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what is held as a shard of its own."""
        if self._rows:
            self.paths.append(write_shard(self.folder / shard_name(len(self.paths)), self._rows, self.streams))
            self._rows, self._bytes = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()
