"""The command line. Each command is a few lines over the Python API; imports wait until they are needed."""

from lalia.cli.app import app, main

__all__ = ["app", "main"]
