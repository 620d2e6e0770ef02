"""Reader of GGUF, version 2 and 3, the container of llama.cpp, without llama.cpp.

A file is a magic number, key-value pairs, a table of tensors, and their data, each aligned. Weights are in blocks of 32
or 256 values that share a scale; ``dequantize`` gives them as float32.
"""

import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lalia.errors import WeightsError

__all__ = ["GGUF", "read"]

_MAGIC = b"GGUF"
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MOST = 1 << 28
"""Entries of an array, bytes of a string: beyond it the file is damaged."""


@dataclass(frozen=True)
class GGUF:
    """What a file holds.

    :param facts: its key-value pairs.
    :param tensors: by name, float32, shaped as PyTorch has them (the last axis is the one that lies together).
    """

    facts: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]


class _Cursor:
    """A place in the bytes of a file."""

    def __init__(self, data: "mmap.mmap | bytes") -> None:
        self.data, self.at = data, 0

    def scalar(self, form: str) -> Any:
        value = struct.unpack_from(form, self.data, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def string(self) -> str:
        size = self.scalar("<Q")
        if size > min(_MOST, len(self.data) - self.at):
            raise ValueError(f"a string of {size} bytes")
        self.at += size
        return self.data[self.at - size : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, count = self.scalar("<I"), self.scalar("<Q")
            if count > _MOST:
                raise ValueError(f"an array of {count} entries")
            return [self.value(inner) for _ in range(count)]
        if kind not in _SCALARS:
            raise ValueError(f"a value of type {kind}")
        return self.scalar(_SCALARS[kind])


def read(path: Path) -> GGUF:
    """
    :raises WeightsError: it is no GGUF, cut short, or quantised in a way that is not known.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(data)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}). Download it again.") from None
    except (ValueError, struct.error, UnicodeDecodeError, KeyError) as error:
        raise WeightsError(f"{path} is no GGUF that can be read ({error}). Download it again.") from None


def _read(data: "mmap.mmap") -> GGUF:
    if data[:4] != _MAGIC:
        raise ValueError("it does not begin with GGUF")
    cursor = _Cursor(data)
    cursor.at = 4
    version = cursor.scalar("<I")
    if version not in {2, 3}:
        raise ValueError(f"version {version}")
    num_tensors, num_facts = cursor.scalar("<Q"), cursor.scalar("<Q")
    facts = {}
    for _ in range(num_facts):
        name = cursor.string()
        facts[name] = cursor.value(cursor.scalar("<I"))
    table = []
    for _ in range(num_tensors):
        name = cursor.string()
        shape = [cursor.scalar("<Q") for _ in range(cursor.scalar("<I"))]
        table.append((name, shape[::-1], cursor.scalar("<I"), cursor.scalar("<Q")))
    alignment = int(facts.get("general.alignment", 32))
    start = -(-cursor.at // alignment) * alignment
    tensors = {}
    for name, shape, kind, offset in table:
        if kind not in _BLOCKS:
            raise ValueError(f"tensor {name!r} has quantisation {kind}")
        values, size, decode = _BLOCKS[kind]
        count = int(np.prod(shape, dtype=np.int64))
        if count % values:
            raise ValueError(f"tensor {name!r} has {count} values in blocks of {values}")
        length = count // values * size
        if start + offset + length > len(data):
            raise ValueError("it is cut short")
        raw = np.frombuffer(data, np.uint8, length, start + offset).reshape(-1, size)
        tensors[name] = decode(raw).reshape(shape)
        del raw
    return GGUF(facts, tensors)


# -- blocks -------------------------------------------------------------------------------------
# Each takes blocks [n, bytes] and gives values [n, of a block].


def _halves(raw: np.ndarray) -> np.ndarray:
    """Float16 numbers [n, k] of bytes [n, 2 k]."""
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)


def _f32(raw: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(raw).view(np.float32).copy()


def _bf16(raw: np.ndarray) -> np.ndarray:
    return (np.ascontiguousarray(raw).view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _nibbles(raw: np.ndarray) -> np.ndarray:
    """Numbers of four bits [n, 32]: the lower halves of 16 bytes, then the upper ones."""
    return np.concatenate([raw & 15, raw >> 4], axis=1).astype(np.float32)


def _q4_0(raw: np.ndarray) -> np.ndarray:
    return _halves(raw[:, :2]) * (_nibbles(raw[:, 2:]) - 8)


def _q4_1(raw: np.ndarray) -> np.ndarray:
    return _halves(raw[:, :2]) * _nibbles(raw[:, 4:]) + _halves(raw[:, 2:4])


def _q8_0(raw: np.ndarray) -> np.ndarray:
    return _halves(raw[:, :2]) * raw[:, 2:].view(np.int8).astype(np.float32)


def _q6_k(raw: np.ndarray) -> np.ndarray:
    """256 values of six bits: four low bits, two high ones, a scale for each 16, one for all."""
    n = len(raw)
    low = raw[:, :128].reshape(n, 2, 1, 64) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1) & 15
    high = raw[:, 128:192].reshape(n, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1) & 3
    values = (low.reshape(n, 2, 4, 32) | high << 4).astype(np.float32).reshape(n, 16, 16) - 32
    scales = raw[:, 192:208].view(np.int8).astype(np.float32)
    return (values * scales[:, :, None]).reshape(n, 256) * _halves(raw[:, 208:210])


_BLOCKS: Mapping[int, tuple[int, int, Callable[[np.ndarray], np.ndarray]]] = {
    0: (1, 4, _f32),
    1: (1, 2, _halves),
    2: (32, 18, _q4_0),
    3: (32, 20, _q4_1),
    8: (32, 34, _q8_0),
    14: (256, 210, _q6_k),
    30: (1, 2, _bf16),
}
"""Values of a block, its bytes, and how it is read, by the number that GGUF gives the kind."""
