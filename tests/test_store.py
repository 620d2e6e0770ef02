import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lalia.errors import CheckpointError, ConfigError, OutputError
from lalia.model import Model
from lalia.recipes import find
from lalia.store import (
    directory_identity,
    holds,
    read_description,
    read_weights,
    write_description,
    write_weights,
)
from lalia.streams import Discrete, StreamSpec

SPEC = StreamSpec(kind=Discrete(100), frame_rate=50.0)


# -- descriptions ---------------------------------------------------------------------------------


def test_description_is_written_and_read(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "model"
    write_description(folder, "spec", SPEC, identity="abc", note="ελληνικά 語")
    config, more = read_description(folder, "spec")
    assert config == SPEC
    assert (more["identity"], more["note"]) == ("abc", "ελληνικά 語")
    assert holds(folder, "spec")
    assert not holds(folder, "recipe")
    assert "語" in (folder / "recipe.json").read_text(encoding="utf-8"), "to be read by people too"


def test_description_in_a_locale_of_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: "ascii")
    write_description(tmp_path, "spec", SPEC, note="語")
    assert read_description(tmp_path, "spec")[1]["note"] == "語"


def test_identity_is_of_description_and_weights_wherever_they_lie(tmp_path: Path) -> None:
    def made(name: str, value: float = 1.0, **more: object) -> Path:
        write_weights(tmp_path / name, {"x": torch.full((2,), value)})
        write_description(tmp_path / name, "spec", SPEC, **more)
        return tmp_path / name

    first = directory_identity(made("a"))
    assert first is not None
    assert len(first) == 64
    assert directory_identity(made("b")) == first
    assert directory_identity(made("c", value=2.0)) != first
    assert directory_identity(made("d", note="other")) != first
    # Another release of lalia writes the same model.
    file = tmp_path / "b" / "recipe.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "lalia": "99"}))
    assert directory_identity(tmp_path / "b") == first
    # Weights that are lent, and weights in several files, which others publish.
    write_description(tmp_path / "e", "spec", SPEC, weights={"of": "c"})
    lent = directory_identity(tmp_path / "e")
    made("c", value=3.0)
    assert None not in (lent, directory_identity(tmp_path / "e"))
    assert directory_identity(tmp_path / "e") != lent
    (tmp_path / "f").mkdir()
    assert directory_identity(tmp_path / "f") is None
    for i in (1, 2):
        (tmp_path / "f" / f"model-{i}-of-2.safetensors").write_bytes(bytes([i]))
    shards = directory_identity(tmp_path / "f")
    (tmp_path / "f" / "model-2-of-2.safetensors").write_bytes(b"other")
    assert None not in (shards, directory_identity(tmp_path / "f"))
    assert directory_identity(tmp_path / "f") != shards


def test_description_of_something_else(tmp_path: Path) -> None:
    write_description(tmp_path, "tokenizer", SPEC)
    with pytest.raises(CheckpointError, match=r"recipe\.json holds no recipe\. Name another directory\."):
        read_description(tmp_path, "recipe")


def test_no_description(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "no", tmp_path / "no" / "no"):
        with pytest.raises(CheckpointError, match=r"has no recipe\.json\. Name a directory that lalia wrote\."):
            read_description(folder, "spec")
        with pytest.raises(CheckpointError, match=r"has no recipe\.json"):
            holds(folder, "spec")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"has no recipe\.json"):
        read_description(tmp_path / "file", "spec")
    (tmp_path / "recipe.json").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot be read \(Is a directory\)"):
        read_description(tmp_path, "spec")


@pytest.mark.parametrize("data", [b"", b"{", b'{"format": 1', b"[]", b"3", b"null", b"\xff\xfe", b"not json\n"])
def test_damaged_description(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "recipe.json").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"recipe\.json is damaged \(.*\)\. Copy or export it again\.$"):
        read_description(tmp_path, "spec")


@given(cut=st.integers(0, 170))
def test_description_cut_short(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    write_description(folder, "spec", SPEC)
    data = (folder / "recipe.json").read_bytes()
    (folder / "recipe.json").write_bytes(data[: min(cut, len(data) - 3)])
    with pytest.raises(CheckpointError, match="is damaged"):
        read_description(folder, "spec")


@pytest.mark.parametrize("format_", [0, 2, None, "1"])
def test_description_of_another_format(tmp_path: Path, format_: int | None) -> None:
    write_description(tmp_path, "spec", SPEC)
    data = json.loads((tmp_path / "recipe.json").read_text())
    data["format"] = format_
    (tmp_path / "recipe.json").write_text(json.dumps(data))
    for read in (lambda: read_description(tmp_path, "spec"), lambda: holds(tmp_path, "spec")):
        with pytest.raises(CheckpointError, match=rf"is of format {format_}, this is 1\. Update lalia\."):
            read()


def test_description_that_does_not_fit_is_told_with_its_path(tmp_path: Path) -> None:
    write_description(tmp_path, "spec", SPEC)
    text = (tmp_path / "recipe.json").read_text()
    (tmp_path / "recipe.json").write_text(text.replace("frame_rate", "frame_rat"))
    with pytest.raises(CheckpointError, match=r"recipe\.json: .* no field 'frame_rat'\. Did you mean 'frame_rate'\?"):
        read_description(tmp_path, "spec")
    (tmp_path / "recipe.json").write_text(text.replace("lalia.streams.StreamSpec", "pathlib.Path"))
    with pytest.raises(CheckpointError, match=r"outside lalia"):
        read_description(tmp_path, "spec")
    with pytest.raises(CheckpointError, match=r"not a configuration"):
        read_description(tmp_path, "spec", trust=("pathlib",))


def test_what_cannot_be_described_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be saved"):
        write_description(tmp_path / "new", "spec", object())
    with pytest.raises(TypeError):
        write_description(tmp_path / "new", "spec", SPEC, more=object())
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/x cannot be made \(Not a directory\)\. Choose another folder\."):
        write_description(tmp_path / "file" / "x", "spec", SPEC)
    with pytest.raises(OutputError, match="cannot be made"):
        write_weights(tmp_path / "file", {"a": torch.zeros(1)})


# -- weights --------------------------------------------------------------------------------------


def weights() -> dict[str, Tensor]:
    shared = torch.randn(6, 4)
    return {
        "plain": torch.randn(3, 5),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(4).half(),
        "integers": torch.arange(7),
        "flags": torch.tensor([True, False]),
        "part": shared[:2],
        "transposed": shared.T,
        "one": shared,
        "two": shared,
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }


def test_weights_are_written_and_read_to_the_bit(tmp_path: Path) -> None:
    tensors = weights()
    write_weights(tmp_path / "new", tensors)
    again = read_weights(tmp_path / "new")
    assert sorted(again) == sorted(tensors)
    for name, t in tensors.items():
        assert again[name].dtype == t.dtype
        assert torch.equal(again[name], t.detach()), name
        assert not again[name].requires_grad


def test_same_weights_make_the_same_file(tmp_path: Path) -> None:
    tensors = weights()
    for name in ("a", "b"):
        write_weights(tmp_path / name, tensors)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_only_floating_point_weights_change_their_type(tmp_path: Path) -> None:
    write_weights(tmp_path, weights(), dtype=torch.bfloat16)
    again = read_weights(tmp_path)
    assert {again[n].dtype for n in ("plain", "scalar", "half", "parameter")} == {torch.bfloat16}
    assert (again["integers"].dtype, again["flags"].dtype) == (torch.int64, torch.bool)


def test_no_weights(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "no"):
        with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
            read_weights(folder)


@given(cut=st.integers(0, 2000))
def test_weights_cut_short(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    write_weights(folder, {"a": torch.randn(100), "b": torch.randn(300)})
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: min(cut, len(data) - 1)])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged \(.*\)\. Copy or export it again\."):
        read_weights(folder)


@pytest.mark.parametrize("data", [b"x" * 100, b"\xff" * 100, b"\x80\x02}q\x00."])
def test_weights_that_are_something_else(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_weights(tmp_path)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Files may not grow over so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_keeps_the_old_weights(tmp_path: Path) -> None:
    write_weights(tmp_path, {"a": torch.zeros(10)})
    with room_for(1000), pytest.raises(OutputError, match=r"model\.safetensors cannot be written .*Make room"):
        write_weights(tmp_path, {"a": torch.ones(10_000)})
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert torch.equal(read_weights(tmp_path)["a"], torch.zeros(10))


# -- what is not in the file ---------------------------------------------------------------------


def test_weights_that_others_published_are_not_saved(tmp_path: Path) -> None:
    model = Model(find("mini").tiny())
    model.save(tmp_path / "one", fetched=("lms.llm.backbone.*", "lms.llm.tables.*"))
    names = set(read_weights(tmp_path / "one"))
    assert not any(n.startswith(("lms.llm.backbone.", "lms.llm.tables.")) for n in names)
    assert any(n.startswith("vocoder.") for n in names)
    again = Model.load(tmp_path / "one")
    ours, theirs = model.module.state_dict(), again.module.state_dict()
    assert all(torch.equal(ours[n], theirs[n]) for n in names if not n.startswith("tokenizers."))
    # It is saved as it was loaded.
    again.save(tmp_path / "two")
    assert set(read_weights(tmp_path / "two")) == names
    # What is neither there nor to be fetched is missing.
    path = tmp_path / "one" / "recipe.json"
    path.write_text(path.read_text().replace('"lms.llm.tables.*"', '"lms.llm.nothing"'))
    with pytest.raises(CheckpointError, match=r"nothing for 'lms\.llm\.tables"):
        Model.load(tmp_path / "one")


def test_a_model_with_the_weights_of_another(tmp_path: Path) -> None:
    mini = Model(find("mini").tiny())
    mini.save(tmp_path / "mini")
    write_description(
        tmp_path / "cascade",
        "recipe",
        find("cascade").tiny(),
        weights={"of": "mini", "without": ["tokenizers.question.*", "lms.llm.inputs.question.*"]},
    )
    cascade = Model.load(tmp_path / "cascade")
    theirs = mini.module.state_dict()
    assert all(torch.equal(t, theirs[n]) for n, t in cascade.module.state_dict().items())
    (tmp_path / "mini" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        Model.load(tmp_path / "cascade")
