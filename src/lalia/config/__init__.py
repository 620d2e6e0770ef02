"""Configurations are frozen dataclasses; every one can be written as plain data and read back.

A class with parameters nests a ``Config`` and takes it as its first argument, and ``config.build()``
makes the object. A value that has no parameters but its own fields (a layout, a stream) is a
``Configuration`` itself. Both become plain dictionaries, tagged with the public name of their class::

    {"type": "lalia.lm.Transformer", "num_layers": 12, ...}

Reading imports nothing outside lalia unless the caller trusts the package by name.
"""

from lalia.config.base import Configurable, Configuration
from lalia.config.changing import override
from lalia.config.plain import from_dict, to_dict

__all__ = ["Configurable", "Configuration", "from_dict", "override", "to_dict"]
