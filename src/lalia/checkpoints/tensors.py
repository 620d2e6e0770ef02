"""The tensors of safetensors files, and the ``config.json`` beside them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lalia.errors import WeightsError

__all__ = ["PICKLED", "Tensors", "read_config", "read_tensors", "weight_files"]


PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class Tensors(Mapping[str, Tensor]):
    """The tensors of files by name, as they are stored, each read when it is asked for.

    :param files: safetensors.
    :param prefix: only those whose names begin so, without it.
    :raises WeightsError: a file is missing or damaged.
    """

    def __init__(self, files: Iterable[Path], prefix: str = "") -> None:
        self._prefix = prefix
        self._homes: dict[str, tuple[Path, Any]] = {}
        for path in files:
            try:
                file = safe_open(path, framework="pt")
                names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (not a mapping)
            except (SafetensorError, OSError) as error:
                raise _damaged(path, error) from None
            self._homes |= {name.removeprefix(prefix): (path, file) for name in names}

    def __getitem__(self, name: str) -> Tensor:
        path, file = self._homes[name]
        try:
            tensor: Tensor = file.get_tensor(self._prefix + name)
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from None
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


def weight_files(folder: Path, name: str | None = None) -> list[Path]:
    """The safetensors files of a folder in the Hugging Face layout.

    :param name: what to call it in an error.
    :raises WeightsError: there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(p.name for p in folder.glob("*") if p.suffix in PICKLED)
        only = f", only {pickled[0]}, and a pickle can run code when it is opened" if pickled else ""
        raise WeightsError(f"{name or folder} has no safetensors file{only}. Give weights as safetensors.")
    return files


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of the safetensors files of a folder, in single precision.

    :raises WeightsError: there are none, or they are damaged.
    """
    return {n: t.float() if t.is_floating_point() else t for n, t in Tensors(weight_files(folder)).items()}


def read_config(folder: Path, name: str = "config.json") -> Mapping[str, Any]:
    """What ``config.json`` of a folder says.

    :raises WeightsError: it is missing or damaged.
    """
    path = folder / name
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read ({error}). Fetch it again.") from None
    if not isinstance(data, Mapping):
        raise WeightsError(f"{path} is no object. Fetch it again.")
    return data


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path} is damaged ({error}). Fetch it again.")
