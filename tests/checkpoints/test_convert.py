from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lalia.checkpoints.convert import convert
from lalia.errors import WeightsError


class Surprise:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return print, ("run",)


def converted(folder: Path, checkpoint: object) -> Path:
    source, target = folder / "source", folder / "target"
    source.mkdir()
    target.mkdir()
    torch.save(checkpoint, source / "model.pt")
    convert("torch", source, target)
    return target / "model.safetensors"


@pytest.mark.parametrize("name", ["model", "model_state"])
def test_weights_of_a_checkpoint_alone(tmp_path: Path, name: str) -> None:
    weight = torch.randn(4, 3).T
    state = OrderedDict(weight=weight, steps=torch.tensor(3))
    file = converted(tmp_path, {name: state, "optimizer_state": {"state": {0: torch.zeros(9)}}, "step": 3})
    found = load_file(file)
    assert list(found) == ["weight"]
    assert torch.equal(found["weight"], weight)


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WeightsError, match="no plain tensors"):
        converted(tmp_path, {"model": Surprise()})
    assert capsys.readouterr().out == ""


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="epoch, not one model"):
        converted(tmp_path, {"epoch": 1})
