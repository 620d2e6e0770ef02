"""What the families share: recipes by name, and configurations with what they leave out."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lalia.errors import WeightsError
from lalia.recipe import Recipe

__all__ = ["complete_config", "published_recipe"]


def published_recipe(name: str) -> Recipe:
    """``lalia.recipes.NAME.NAME()``, without a dependency on any of them."""
    recipe: Recipe = getattr(importlib.import_module(f"lalia.recipes.{name}"), name)()
    return recipe


def complete_config(kind: str, said: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """``config.json`` as ``transformers`` understands it: with its defaults, which files leave out.

    :param kind: the ``model_type`` whose defaults count.
    :raises WeightsError: it is no configuration of that kind.
    """
    from transformers import AutoConfig

    try:
        fields = {n: v for n, v in said.items() if n not in ("model_type", "architectures")}
        config: dict[str, Any] = AutoConfig.for_model(kind, **fields).to_dict()
    except Exception as error:  # noqa: BLE001  what a wrong value can raise is not part of any interface
        reason = " ".join(str(error).split()).rstrip(".")
        raise WeightsError(
            f"{folder}/config.json is no configuration of a {kind} ({reason}). Fetch it again."
        ) from None
    return config
