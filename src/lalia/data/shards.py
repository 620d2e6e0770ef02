"""Token shards: Parquet files that say which tokenizer made them.

A shard has one row per utterance: ``id``, ``speaker``, ``text``, ``language``, ``seconds``, and for each
stream NAME

=================  ======================================================================================
``NAME``           codes as a list of T * K integers, the K codes of a frame beside each other; or features
                   as a list of T lists of D float16
``NAME/length``    T
``NAME/durations`` frames per token, where repeats were removed
``NAME/times``     start of each token in seconds, where the stream has times
=================  ======================================================================================

A stream whose name is that of a column about the utterance (``text``) has ``NAME/values`` in place of ``NAME``. The
metadata key ``lalia`` holds JSON: the version of this format, and for each stream its ``StreamSpec``,
the configuration of its tokenizer, and the tokenizer's name and SHA-256.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError, DataError, OutputError
from lalia.streams import Discrete, Streams, StreamSpec

__all__ = [
    "Header",
    "StreamInfo",
    "TokenRow",
    "code_type",
    "column_of",
    "damaged",
    "make_folder",
    "read_header",
    "schema_of",
    "shard_name",
]

FORMAT_VERSION = 1

_KEY = b"lalia"


@dataclass(frozen=True)
class StreamInfo:
    """What a stream of a shard is and what made it.

    :param name: of the tokenizer, for people.
    :param sha256: of everything that decides the tokenizer's output, in hexadecimal.
    :param tokenizer: the tokenizer's configuration as plain data.
    """

    spec: StreamSpec
    name: str
    sha256: str
    tokenizer: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} ({self.sha256[:12]})"


@dataclass(frozen=True, eq=False)
class TokenRow:
    """An utterance as tokens; ``streams`` has batch size 1."""

    id: str
    seconds: float
    streams: Streams
    speaker: str | None = None
    text: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class Header:
    """What a shard says about itself.

    :param note: whatever its writer added.
    """

    num_rows: int
    streams: Mapping[str, StreamInfo]
    note: Mapping[str, Any]


def shard_name(i: int) -> str:
    """The file name of shard ``i``."""
    return f"tokens-{i:05d}.parquet"


# -- columns ----------------------------------------------------------------------------------------


def code_type(kind: Discrete) -> np.dtype[Any]:
    """The smallest type that holds every id of the stream, its end included."""
    highest = max(kind.num_ids - 1, kind.end_id)
    return np.dtype(np.uint16) if highest < 2**16 else np.dtype(np.uint32)


_ABOUT = ("id", "speaker", "text", "language", "seconds")


def column_of(stream: str) -> str:
    """The column that holds the values of a stream."""
    return f"{stream}/values" if stream in _ABOUT else stream


def _columns(name: str, info: StreamInfo, timed: bool) -> list[tuple[str, pa.DataType]]:
    kind = info.spec.kind
    if isinstance(kind, Discrete):
        values = pa.list_(pa.from_numpy_dtype(code_type(kind)))
    else:
        values = pa.list_(pa.list_(pa.float16(), kind.dim))
    columns = [(column_of(name), values), (f"{name}/length", pa.uint32())]
    if info.spec.deduplicated:
        columns.append((f"{name}/durations", pa.list_(pa.uint32())))
    if timed:
        columns.append((f"{name}/times", pa.list_(pa.float32())))
    return columns


def schema_of(streams: Mapping[str, StreamInfo], timed: set[str], note: Mapping[str, Any]) -> pa.Schema:
    """The columns and the header of a shard; ``timed`` names the streams that have times."""
    columns: list[tuple[str, pa.DataType]] = [
        ("id", pa.string()),
        ("speaker", pa.string()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("seconds", pa.float64()),
    ]
    for name, info in streams.items():
        columns += _columns(name, info, name in timed)
    header = {
        "version": FORMAT_VERSION,
        "streams": {
            name: {
                "spec": to_dict(i.spec),
                "tokenizer": to_dict(i.tokenizer),
                "identity": {"name": i.name, "sha256": i.sha256},
            }
            for name, i in streams.items()
        },
        "note": note,
    }
    return pa.schema(columns, metadata={_KEY: json.dumps(header, ensure_ascii=False)})


def make_folder(folder: str | Path) -> Path:
    """The folder, made where it does not exist.

    :raises OutputError: it cannot be made, or it is a file.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be made a folder ({error.strerror}). Choose another.") from None
    return path


# -- reading the header -----------------------------------------------------------------------------


def read_header(path: str | Path) -> Header:
    """What a shard says about itself; its rows stay on disk.

    :raises DataError: missing, truncated, corrupt, not a token shard, or of a newer format.
    """
    try:
        metadata = pq.read_metadata(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Check the path.") from None
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from None
    raw = (metadata.metadata or {}).get(_KEY)
    if raw is None:
        raise DataError(f"{path} is Parquet but not a token shard. Name a folder that 'lalia tokenize' wrote.")
    try:
        data = json.loads(raw)
        version = data["version"]
        if version != FORMAT_VERSION:
            raise DataError(f"{path} has format {version}, this is format {FORMAT_VERSION}. Update lalia.")
        streams = {
            name: StreamInfo(from_dict(s["spec"]), s["identity"]["name"], s["identity"]["sha256"], s["tokenizer"])
            for name, s in data["streams"].items()
        }
        return Header(metadata.num_rows, streams, data["note"])
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise damaged(path, error) from None


def damaged(path: str | Path, error: Exception) -> DataError:
    """The error for a shard that cannot be read."""
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return DataError(f"{path} is damaged ({reason}). Delete it and tokenize again: only what is missing is made.")
