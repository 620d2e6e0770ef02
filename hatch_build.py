"""Puts the bundled models into wheels.

They lie in ``models/`` at the root of the repository, where the scripts that train them write them, and
belong in ``lalia/models/`` of an installed package. An editable install must not copy them: lalia finds
the originals beside ``src/``, and a copy would go stale with the next training run.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BundledModels(BuildHookInterface):
    """Maps ``models/`` to ``lalia/models/`` in every wheel but the editable one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects files; ``version`` is "standard" or "editable"."""
        models = Path(self.root) / "models"
        if version == "standard" and models.is_dir():
            build_data["force_include"][str(models)] = "lalia/models"
