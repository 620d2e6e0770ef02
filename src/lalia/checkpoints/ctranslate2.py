"""Reader of CTranslate2's ``model.bin``, version 6, without CTranslate2.

The file is little-endian: version (u32), name of the specification (string), its revision (u32),
the number of variables (u32), then for each its name (string), rank (u8), dimensions (u32 each),
type (u8), size in bytes (u32) and data; then the number of aliases (u32), each a pair of strings.
A string is its length with the closing NUL (u16) and its UTF-8 bytes.

Source: ``ModelSpec._serialize`` and ``_quantize`` in ``ctranslate2/specs/model_spec.py`` (CTranslate2 4.8).
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lalia.errors import WeightsError

__all__ = ["Ct2Model", "dequantize", "read"]

VERSION = 6
_BFLOAT16 = 5
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16, _BFLOAT16: np.uint16}


@dataclass(frozen=True)
class Ct2Model:
    """What a ``model.bin`` holds.

    ``variables`` are read-only arrays as they are stored (bfloat16 widened to float32), aliases included.
    """

    spec: str
    revision: int
    variables: Mapping[str, np.ndarray]


class _Cursor:
    """A position in a buffer that cannot run past its end."""

    def __init__(self, buffer: mmap.mmap | bytes, where: Path) -> None:
        self.buffer, self.where, self.offset = buffer, where, 0

    def skip(self, size: int) -> int:
        """Move on by ``size`` bytes and return where they began."""
        start = self.offset
        if size > len(self.buffer) - start:
            raise _damaged(self.where, f"it ends at byte {len(self.buffer)}, {size} more were due at byte {start}")
        self.offset += size
        return start

    def number(self, kind: str) -> int:
        layout = struct.Struct("<" + kind)
        return layout.unpack_from(self.buffer, self.skip(layout.size))[0]

    def text(self) -> str:
        size = self.number("H")
        start = self.skip(size)
        raw = self.buffer[start : start + size]
        try:
            return raw.removesuffix(b"\0").decode()
        except UnicodeDecodeError:
            raise _damaged(self.where, f"the name at byte {start} is not text") from None


def _damaged(path: Path, why: str) -> WeightsError:
    return WeightsError(f"{path} is not a whole CTranslate2 model ({why}). Download it again.")


def read(path: str | Path) -> Ct2Model:
    """Read a ``model.bin``; the arrays are mapped from the file, not copied.

    :raises WeightsError: the file is missing, cut short, damaged, or of another binary version.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise _damaged(path, "it is empty") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}). Name a model.bin of CTranslate2.") from None
    cursor = _Cursor(buffer, path)
    version = cursor.number("I")
    if version != VERSION:
        raise WeightsError(
            f"{path} has CTranslate2 binary version {version}, not {VERSION}. Convert it with a current CTranslate2."
        )
    spec, revision = cursor.text(), cursor.number("I")
    variables: dict[str, np.ndarray] = {}
    for _ in range(cursor.number("I")):
        name = cursor.text()
        variables[name] = _variable(cursor, name)
    aliases = {cursor.text(): cursor.text() for _ in range(cursor.number("I"))}
    if cursor.offset != len(buffer):
        raise _damaged(path, f"{len(buffer) - cursor.offset} bytes follow its end")
    for alias, target in aliases.items():
        if target not in variables:
            raise _damaged(path, f"{alias!r} stands for {target!r}, which is not there")
    # An alias of a quantised weight shares its scale, which need not have an alias of its own.
    aliases = {f"{a}_scale": f"{t}_scale" for a, t in aliases.items() if f"{t}_scale" in variables} | aliases
    shared = {alias: variables[target] for alias, target in aliases.items() if alias not in variables}
    return Ct2Model(spec, revision, variables | shared)


def _variable(cursor: _Cursor, name: str) -> np.ndarray:
    shape = tuple(cursor.number("I") for _ in range(cursor.number("B")))
    kind, size = cursor.number("B"), cursor.number("I")
    if kind not in _TYPES:
        raise _damaged(cursor.where, f"{name!r} has the unknown type {kind}")
    dtype = np.dtype(_TYPES[kind]).newbyteorder("<")
    count = math.prod(shape)
    if count * dtype.itemsize != size:
        raise _damaged(cursor.where, f"{name!r} has {size} bytes for a shape of {list(shape)}")
    values = np.frombuffer(cursor.buffer, dtype, count, cursor.skip(size)).reshape(shape)
    # A bfloat16 is the upper half of a float32, and numpy has no such type.
    return (values.astype(np.uint32) << 16).view(np.float32) if kind == _BFLOAT16 else values


def dequantize(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Integer weights back as float32 ``q / scale``; everything else unchanged, and the scales gone.

    int8 has one scale per output row (127 / largest magnitude), int16 one for the whole weight.

    :raises WeightsError: an integer weight has no scale, a scale of the wrong shape, or a zero point (AWQ).
    """
    result: dict[str, np.ndarray] = {}
    for name, value in variables.items():
        if any(name.endswith(end) and name.removesuffix(end) in variables for end in ("_scale", "_zero")):
            continue
        if value.ndim and value.dtype.kind in "iu":
            if f"{name}_scale" not in variables or f"{name}_zero" in variables:
                raise WeightsError(
                    f"{name!r} is quantised to {value.dtype} in a way that cannot be undone. "
                    "Use float16, float32, int16 or int8 weights."
                )
            scale = variables[f"{name}_scale"].astype(np.float32)
            if scale.shape not in ((), value.shape[:1]):
                raise WeightsError(
                    f"{name!r} of shape {list(value.shape)} has scales of shape {list(scale.shape)}. "
                    "Convert the model again."
                )
            value = value.astype(np.float32) / scale.reshape(scale.shape + (1,) * (value.ndim - scale.ndim))
        result[name] = value
    return result
