"""One field of a configuration changed, as a command line names it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, get_args, get_origin

import yaml

from lalia.config.plain import field_types, options, public_name, read, unknown
from lalia.errors import ConfigError

__all__ = ["override"]

T = TypeVar("T")


def override(config: T, path: str, text: str) -> T:
    """A copy with one field changed: ``override(recipe, "lms.ulm.backbone.num_layers", "4")``.

    :param path: field names, mapping keys and places in tuples, joined by dots.
    :param text: the new value as YAML (``4``, ``1e-3``, ``true``, ``[1, 2]``, ``null``, ``{type: ...}``).
    :raises ConfigError: the path does not exist, or the value is of the wrong type.
    """
    return _override(config, path.split("."), text, "", Any)


def _override(config: Any, path: list[str], text: str, where: str, hint: Any) -> Any:
    if not path:
        return _parse(text, hint, where)
    head, rest = path[0], path[1:]
    here, outer = f"{where}.{head}".lstrip("."), where or "the configuration"
    if isinstance(config, Mapping):
        if head not in config:
            raise ConfigError(unknown(head, list(config), outer))
        return {**config, head: _override(config[head], rest, text, here, _inside(hint, Mapping, 1))}
    if isinstance(config, list | tuple):
        if not head.isdigit() or int(head) >= len(config):
            raise ConfigError(f"{outer} has {len(config)} entries, not {head!r}. Count from 0.")
        i = int(head)
        changed = _override(config[i], rest, text, here, _inside(hint, Sequence, i))
        return type(config)([*config[:i], changed, *config[i + 1 :]])
    if not is_dataclass(config) or isinstance(config, type):
        raise ConfigError(f"{outer} is {config!r} and has nothing named {head!r}. Shorten the path.")
    names = [f.name for f in fields(config) if f.init]
    if head not in names:
        raise ConfigError(unknown(head, names, where or public_name(type(config))))
    value = _override(getattr(config, head), rest, text, here, field_types(type(config)).get(head, Any))
    return replace(config, **{head: value})


def _inside(hint: Any, kind: type, place: int) -> Any:
    """The annotation of the entry of a container that is annotated with ``hint``."""
    for option in options(hint):
        origin, args = get_origin(option), get_args(option)
        if args and isinstance(origin, type) and issubclass(origin, kind):
            if kind is Mapping:
                return args[1]
            return args[place] if origin is tuple and args[-1] is not Ellipsis else args[0]
    return Any


def _parse(text: str, hint: Any, where: str) -> Any:
    """The first reading of ``text`` that fits: a YAML value, else the text as it stands (``name=4``)."""
    wrong: ConfigError | None = None
    for value in _readings(text):
        try:
            return read(value, hint, where, ("lalia",))
        except ConfigError as error:
            wrong = wrong or error
    assert wrong is not None
    raise wrong


def _readings(text: str) -> Iterator[Any]:
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", text):
        yield float(text)  # which YAML 1.1 takes for a string, unless it has both a point and a sign
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if isinstance(value, bool | int | float | str | list | dict) or value is None:
        yield value
    yield text
