"""The version, where nothing has to be installed or imported to read it."""

__all__ = ["__version__"]

__version__ = "0.1.0"
