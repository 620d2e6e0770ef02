"""Every error that lalia raises for a caller's mistake or a broken input.

::

    LaliaError
    ├── AudioError          a recording that cannot be used (missing, corrupt, empty, silent, NaN, ...)
    ├── ConfigError         a configuration that is wrong or cannot be read
    │   └── RecipeError     a recipe whose parts do not fit one another
    ├── LayoutError         streams that do not fit a layout, or a grid that was not made by it
    ├── DataError           a manifest or a token shard that cannot be used
    ├── CheckpointError     a checkpoint that is missing, incomplete or of another model
    ├── OutputError         a file or folder that cannot be written
    ├── JudgeError          a judge that gave no answer, or none that can be read
    ├── WeightsError        third-party weights that cannot be had or do not verify
    └── MissingDependency   an optional package that this call needs

Each message is one line that names the object, the value and the cure: ``WHAT. WHAT TO DO.``
The command line prints it and exits with 2; any other exception is a fault of lalia itself.
"""

__all__ = [
    "AudioError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "JudgeError",
    "LaliaError",
    "LayoutError",
    "MissingDependency",
    "OutputError",
    "RecipeError",
    "WeightsError",
]


class LaliaError(Exception):
    """The base of every error raised on purpose."""


class AudioError(LaliaError):
    """A recording that cannot be used."""


class ConfigError(LaliaError):
    """A configuration that is wrong or cannot be read."""


class RecipeError(ConfigError):
    """A recipe whose parts do not fit one another."""


class LayoutError(LaliaError):
    """Streams that do not fit a layout."""


class DataError(LaliaError):
    """A manifest or a token shard that cannot be used."""


class CheckpointError(LaliaError):
    """A checkpoint that is missing, incomplete or of another model."""


class OutputError(LaliaError):
    """A file or folder that cannot be written."""


class JudgeError(LaliaError):
    """A judge that gave no answer, or none that can be read."""


class WeightsError(LaliaError):
    """Third-party weights that cannot be had or do not verify."""


class MissingDependency(LaliaError):
    """An optional package that this call needs.

    :param package: what to import.
    :param extra: the extra of lalia that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Run: pip install 'lalia[{extra}]'.")
