"""lalia: a toolkit for speech language models.

import lalia

model = lalia.load("mini-gslm")
model.continue_("prompt.wav", seconds=10).audio.save("out.wav")
"""

from typing import TYPE_CHECKING, Any

from lalia.version import __version__

__all__ = ["Audio", "LaliaError", "Model", "__version__", "load"]

if TYPE_CHECKING:
    from lalia.audio import Audio
    from lalia.errors import LaliaError
    from lalia.model import Model, load

_HOMES = {"Audio": "lalia.audio", "LaliaError": "lalia.errors", "Model": "lalia.model", "load": "lalia.model"}


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import; `lalia --help` and mere metadata should not.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'lalia' has no attribute {name!r}")
