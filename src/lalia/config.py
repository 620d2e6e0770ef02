"""Configurations are frozen dataclasses; every one can be written as plain data and read back.

A class with parameters nests a ``Config`` and takes it as its first argument, and ``config.build()``
makes the object. A value that has no parameters but its own fields (a layout, a stream) is a
``Configuration`` itself. Both become plain dictionaries, tagged with the public name of their class::

    {"type": "lalia.lm.Transformer", "num_layers": 12, ...}

Reading imports nothing outside lalia unless the caller trusts the package by name.
"""

import difflib
import importlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

import yaml

from lalia.errors import ConfigError

__all__ = ["Configurable", "Configuration", "from_dict", "override", "to_dict"]

T = TypeVar("T")


@dataclass(frozen=True)
class Configuration:
    """Plain, frozen data that describes something; the base of every config."""

    def to_dict(self) -> dict[str, Any]:
        """This value as tagged plain data (JSON types only)."""
        return to_dict(self)

    def tiny(self) -> Self:
        """The same thing at the smallest size at which every part of it still works.

        By default every configuration inside is made tiny; one that has a size of its own says how.
        """
        return replace(self, **{f.name: _tiny(getattr(self, f.name)) for f in fields(self) if f.init})


class Configurable:
    """A class built from a nested ``Config``: ``X.Config(...).build()`` is ``X(X.Config(...))``."""

    @dataclass(frozen=True)
    class Config(Configuration):
        owner: ClassVar[type["Configurable"]]

        def build(self, *args: Any, **kwargs: Any) -> Any:
            """Construct the object that this configuration describes."""
            return self.owner(self, *args, **kwargs)  # type: ignore[call-arg]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "Config" in cls.__dict__:
            cls.Config.owner = cls


def _tiny(value: Any) -> Any:
    if isinstance(value, Configuration):
        return value.tiny()
    if isinstance(value, Mapping):
        return {k: _tiny(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(_tiny(v) for v in value)
    return value


def _public(cls: type) -> str:
    """The shortest importable name of a class, so that moving it inside its package breaks no file."""
    target = cls.owner if issubclass(cls, Configurable.Config) else cls
    parts = target.__module__.split(".")
    for depth in range(2, len(parts) + 1):
        package = ".".join(parts[:depth])
        if getattr(importlib.import_module(package), target.__name__, None) is target:
            return f"{package}.{target.__name__}"
    return f"{target.__module__}.{target.__qualname__}"


def to_dict(value: Any) -> Any:
    """A configuration (or a container of them) as plain, tagged, JSON-ready data."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": _public(type(value))} | {f.name: to_dict(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_dict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{value!r} of type {type(value).__name__} cannot be saved in a configuration. Use plain data.")


def _resolve(name: str, trusted: tuple[str, ...]) -> type[Configuration]:
    package = name.split(".")[0]
    if package not in trusted:
        raise ConfigError(
            f"The configuration names {name!r}, outside {', '.join(trusted)}. "
            f"If you trust that package, load with trust=({package!r},)."
        )
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"The configuration names {name!r}, which does not exist here ({error}). Update lalia or fix the name."
        ) from None
    found = getattr(found, "Config", found)
    if not (isinstance(found, type) and issubclass(found, Configuration)):
        raise ConfigError(f"{name!r} is not a configuration of lalia. Fix the 'type' field.")
    return found


def from_dict(data: Any, *, trust: tuple[str, ...] = ()) -> Any:
    """The value that ``to_dict`` wrote.

    :param trust: packages beside lalia whose classes the data may name.
    :raises ConfigError: an unknown class or field, or a value of the wrong type.
    """
    if isinstance(data, Mapping) and "type" in data:
        cls = _resolve(str(data["type"]), ("lalia", *trust))
        values = {k: from_dict(v, trust=trust) for k, v in data.items() if k != "type"}
        return _construct(cls, values)
    if isinstance(data, Mapping):
        return {k: from_dict(v, trust=trust) for k, v in data.items()}
    if isinstance(data, list | tuple):
        return tuple(from_dict(v, trust=trust) for v in data)
    return data


def _construct(cls: type[Any], values: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    names = [f.name for f in fields(cls)]
    for name in values:
        if name not in names:
            raise ConfigError(_unknown(name, names, _public(cls)))
    return cls(**{k: _check(v, hints.get(k, Any), f"{_public(cls)}.{k}") for k, v in values.items()})


def _unknown(name: str, names: list[str], where: str) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"It has {', '.join(names) or 'no fields'}."
    return f"{where} has no field {name!r}. {hint}"


def _check(value: Any, hint: Any, where: str) -> Any:
    """``value`` if it fits the annotation, with JSON's coercions undone (list to tuple, int to float)."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return value
    if origin in (Union, types.UnionType):
        for option in args:
            try:
                return _check(value, option, where)
            except ConfigError:
                continue
        raise _mismatch(value, hint, where)
    if origin is Literal:
        if value in args:
            return value
        raise _mismatch(value, hint, where)
    if hint is None or hint is type(None):
        if value is None:
            return None
        raise _mismatch(value, hint, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _mismatch(value, hint, where)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_check(v, args[0], where) for v in value)
        if args and len(args) != len(value):
            raise _mismatch(value, hint, where)
        return tuple(_check(v, a, where) for v, a in zip(value, args, strict=True)) if args else tuple(value)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _mismatch(value, hint, where)
        return {k: _check(v, args[1], where) for k, v in value.items()} if args else dict(value)
    target = origin or hint
    if target is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(target, type) and not getattr(target, "_is_protocol", False):
        if isinstance(value, bool) and target is not bool:
            raise _mismatch(value, hint, where)
        if not isinstance(value, target):
            raise _mismatch(value, hint, where)
    return value


def _mismatch(value: Any, hint: Any, where: str) -> ConfigError:
    wanted = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint).replace("typing.", "")
    return ConfigError(f"{where} is {value!r}, but must be {wanted}. Give a value of that type.")


def override(config: T, path: str, text: str) -> T:
    """A copy with one field changed: ``override(recipe, "lms.ulm.backbone.num_layers", "4")``.

    :param path: field names and mapping keys joined by dots.
    :param text: the new value as YAML (``4``, ``true``, ``[1, 2]``, ``null``).
    :raises ConfigError: the path does not exist, or the value is of the wrong type.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    return _override(config, path.split("."), value, "")


def _override(config: Any, path: list[str], value: Any, where: str) -> Any:
    head, rest = path[0], path[1:]
    here = f"{where}.{head}".lstrip(".")
    if isinstance(config, Mapping):
        if head not in config:
            raise ConfigError(_unknown(head, list(config), where or "the configuration"))
        return {**config, head: _override(config[head], rest, value, here) if rest else value}
    if isinstance(config, tuple) and head.isdigit() and int(head) < len(config):
        i = int(head)
        return (*config[:i], _override(config[i], rest, value, here) if rest else value, *config[i + 1 :])
    if not is_dataclass(config) or isinstance(config, type):
        raise ConfigError(f"{where or 'the configuration'} has nothing named {head!r}. Shorten the path.")
    names = [f.name for f in fields(config)]
    if head not in names:
        raise ConfigError(_unknown(head, names, where or _public(type(config))))
    if rest:
        changed = _override(getattr(config, head), rest, value, here)
    else:
        changed = _check(value, typing.get_type_hints(type(config)).get(head, Any), here)
    return replace(config, **{head: changed})
