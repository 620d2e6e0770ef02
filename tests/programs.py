"""Programs of the repository that are no part of the package, as modules."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def program_at(path: Path) -> ModuleType:
    """A program by its file."""
    spec = spec_from_file_location(f"program_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look themselves up
    spec.loader.exec_module(loaded)
    return loaded
