import contextlib
import struct
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lalia.checkpoints.ctranslate2 import dequantize, read
from lalia.errors import WeightsError

ARRAYS = st.sampled_from([np.float32, np.float16, np.int8, np.int16, np.int32]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


def save(folder: Path, content: bytes) -> Path:
    path = folder / "model.bin"
    path.write_bytes(content)
    return path


@given(st.dictionaries(NAMES, ARRAYS, max_size=5), st.data())
def test_what_is_written_is_read(
    ct2: ModuleType, tmp_path_factory: pytest.TempPathFactory, variables: dict[str, np.ndarray], data: st.DataObject
) -> None:
    aliases = {}
    if variables:
        fresh = NAMES.filter(lambda name: name not in variables)
        aliases = data.draw(st.dictionaries(fresh, st.sampled_from(sorted(variables)), max_size=2))
    model = read(save(tmp_path_factory.mktemp("ct2"), ct2.serialize(variables, aliases, spec="AnySpec")))
    assert (model.spec, model.revision) == ("AnySpec", 3)
    expected = variables | {alias: variables[name] for alias, name in aliases.items()}
    assert model.variables.keys() == expected.keys()
    for name, value in expected.items():
        assert model.variables[name].dtype == value.dtype
        np.testing.assert_array_equal(model.variables[name], value)


def test_bfloat16_is_widened(ct2: ModuleType, tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5, 0.0], [3.140625, 1e30, -0.0]], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    kept = (halves.astype(np.uint32) << 16).view(np.float32)
    found = read(save(tmp_path, ct2.serialize({"x": halves}, bfloat16=("x",)))).variables["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, kept)


def test_every_shortened_file_is_refused(ct2: ModuleType, tmp_path: Path) -> None:
    variables = {"a/weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a/heads": np.array(2, np.int16)}
    whole = ct2.serialize(variables, {"b": "a/weight"})
    read(save(tmp_path, whole))
    for size in range(len(whole)):
        with pytest.raises(WeightsError, match=r"not a whole CTranslate2 model.*Download it again"):
            read(save(tmp_path, whole[:size]))


@given(st.data())
def test_damage_never_does_worse_than_an_error(
    ct2: ModuleType, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(ct2.serialize({"a": np.arange(4, dtype=np.float16), "b": np.array(1, np.int8)}, {"c": "a"}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WeightsError):
        read(save(tmp_path_factory.mktemp("ct2"), bytes(content)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, v: s(v, version=5), "binary version 5"),
        (lambda s, v: s(v) + b"\0", "1 bytes follow"),
        (lambda s, v: s(v, {"x": "nothing"}), "'x' stands for 'nothing'"),
        (lambda s, v: s({"a": v["a"].astype(np.int32)}).replace(b"\3\x10", b"\7\x10"), "unknown type 7"),
        (lambda s, v: s(v).replace(struct.pack("<I", 16), struct.pack("<I", 12)), "12 bytes for a shape of .4."),
    ],
)
def test_wrong_contents_are_named(ct2: ModuleType, tmp_path: Path, change: object, message: str) -> None:
    assert callable(change)
    content = change(ct2.serialize, {"a": np.ones(4, np.float32)})
    with pytest.raises(WeightsError, match=message):
        read(save(tmp_path, content))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        read(tmp_path / "model.bin")


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 2)])
def test_int8_is_scaled_by_row(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    exact = rng.standard_normal(shape).astype(np.float32)
    scale = 127 / np.abs(exact.reshape(shape[0], -1)).max(1)
    stored = np.rint(exact * scale.reshape(-1, *[1] * (len(shape) - 1))).astype(np.int8)
    heads = np.array(2, np.int16)
    found = dequantize({"w": stored, "w_scale": scale.astype(np.float32), "heads": heads})
    assert found.keys() == {"w", "heads"}
    assert found["heads"] is heads
    for row, original, s in zip(found["w"], exact, scale, strict=True):
        assert np.abs(row - original).max() <= 0.5001 / s


def test_int16_has_one_scale() -> None:
    exact = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    scale = np.float32(2**10 / np.abs(exact).max())
    found = dequantize({"w": np.rint(exact * scale).astype(np.int16), "w_scale": np.array(scale)})["w"]
    assert np.abs(found - exact).max() <= 0.5001 / scale


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({}, "cannot be undone"),
        ({"w_scale": np.ones(2, np.float32), "w_zero": np.zeros(2, np.int8)}, "cannot be undone"),
        ({"w_scale": np.ones(3, np.float32)}, r"scales of shape \[3\]"),
    ],
)
def test_what_cannot_be_dequantized(others: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        dequantize({"w": np.ones((2, 3), np.int8), **others})
