"""The tensors of a folder in the Hugging Face layout."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lalia.errors import WeightsError

__all__ = ["read_config", "read_tensors"]


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of the safetensors files of a folder, in single precision.

    :raises WeightsError: there are none, or they are damaged.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(f"{folder} has no safetensors file. Give weights as safetensors.")
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is damaged ({error}). Fetch it again.") from None
    return {name: t.to(torch.float32) if t.is_floating_point() else t for name, t in tensors.items()}


def read_config(folder: Path) -> Mapping[str, Any]:
    """What ``config.json`` of a folder says.

    :raises WeightsError: it is missing or damaged.
    """
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read ({error}). Fetch it again.") from None
    if not isinstance(data, Mapping):
        raise WeightsError(f"{path} is no object. Fetch it again.")
    return data
