"""Configurations to plain data and back, checked against the annotations."""

import difflib
import importlib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from lalia.config.base import Configurable, Configuration
from lalia.errors import ConfigError

__all__ = ["field_types", "from_dict", "options", "public_name", "read", "to_dict", "unknown"]


def public_name(cls: type) -> str:
    """The shortest importable name of a class, so that moving it inside its package breaks no file."""
    target = cls.owner if issubclass(cls, Configurable.Config) else cls
    parts = target.__module__.split(".")
    for depth in range(2, len(parts) + 1):
        package = ".".join(parts[:depth])
        if getattr(importlib.import_module(package), target.__name__, None) is target:
            return f"{package}.{target.__name__}"
    return f"{target.__module__}.{target.__qualname__}"


def to_dict(value: Any) -> Any:
    """A configuration (or a container of them) as plain, tagged, JSON-ready data.

    :raises ConfigError: something in it is neither a configuration nor plain data.
    """
    if isinstance(value, Configuration):
        return {"type": public_name(type(value))} | {
            f.name: to_dict(getattr(value, f.name)) for f in fields(value) if f.init
        }
    if isinstance(value, Mapping):
        for k in value:
            if not isinstance(k, str):
                raise ConfigError(f"The key {k!r} of a mapping is not a string and cannot be saved. Use strings.")
        return {k: to_dict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{value!r} of type {type(value).__name__} cannot be saved in a configuration. Use plain data.")


def from_dict(data: Any, *, trust: tuple[str, ...] = ()) -> Any:
    """The value that ``to_dict`` wrote.

    :param trust: packages beside lalia whose classes the data may name.
    :raises ConfigError: an unknown class or field, a field that is missing, or a value of the wrong type.
    """
    return read(data, object, "the configuration", ("lalia", *trust))


def read(value: Any, hint: Any, where: str, trusted: tuple[str, ...]) -> Any:
    """``value`` as the annotation has it: tagged data built, and JSON's coercions undone (list to tuple, int to float).

    Under ``object`` every mapping with a ``type`` is one of ours; under ``Any`` it may be somebody else's data
    (the ``rope_scaling`` of a model's config.json), and only the tag of a trusted package says otherwise.
    """
    kinds = options(hint)
    if isinstance(value, Mapping) and isinstance(value.get("type"), str):
        foreign = any(o is Any or isinstance(o, TypeVar) for o in kinds) and not _is_ours(value["type"], trusted)
        if not foreign and not any(_is_mapping(o) for o in kinds):
            # Built before an option of a union is chosen, so that what is wrong inside is what is told.
            value = _construct(_resolve(value["type"], trusted), value, trusted)
    for option in kinds:
        found = _fit(value, option, where, trusted)
        if found is not MISSING:
            return found
    wanted = hint.__qualname__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    raise ConfigError(f"{where} is {value!r}, but must be {wanted}. Give a value of that type.")


def _fit(value: Any, hint: Any, where: str, trusted: tuple[str, ...]) -> Any:
    """``value`` as one annotation that is no union has it; MISSING when it does not fit."""
    origin, args = get_origin(hint) or hint, get_args(hint)
    if hint is object or hint is Any or isinstance(hint, TypeVar):
        inside = object if hint is object else Any
        if isinstance(value, Mapping):
            return {k: read(v, inside, where, trusted) for k, v in value.items()}
        if isinstance(value, list | tuple):
            items = [read(v, inside, where, trusted) for v in value]
            return tuple(items) if hint is object else items
        return value
    if origin is Literal:
        return next((a for a in args if type(a) is type(value) and a == value), MISSING)
    if hint is None or hint is types.NoneType:
        return None if value is None else MISSING
    if _is_mapping(hint):
        if not isinstance(value, Mapping):
            return MISSING
        return {k: read(v, args[1] if args else Any, f"{where}.{k}", trusted) for k, v in value.items()}
    if origin in (tuple, list, Sequence):
        return _fit_items(value, origin, args, where, trusted)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) and origin is not bool:
        return MISSING
    if not isinstance(origin, type) or getattr(origin, "_is_protocol", False):
        return value
    return value if isinstance(value, origin) else MISSING


def _fit_items(value: Any, origin: Any, args: tuple[Any, ...], where: str, trusted: tuple[str, ...]) -> Any:
    if not isinstance(value, list | tuple):
        return MISSING
    hints = list(args) or [Any]
    if origin is not tuple or args[1:] == (Ellipsis,) or not args:
        hints = hints[:1] * len(value)
    if len(hints) != len(value):
        return MISSING
    items = [read(v, h, f"{where}.{i}", trusted) for i, (v, h) in enumerate(zip(value, hints, strict=True))]
    return items if origin is list else tuple(items)


def options(hint: Any) -> tuple[Any, ...]:
    """The members of a union; of anything else, itself."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_mapping(hint: Any) -> bool:
    origin = get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_ours(name: str, trusted: tuple[str, ...]) -> bool:
    return "." in name and name.split(".")[0] in trusted


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


def field_types(cls: type[Any]) -> dict[str, Any]:
    """The annotations of a dataclass by field, names resolved."""
    return typing.get_type_hints(cls)


def _construct(cls: type[Any], data: Mapping[str, Any], trusted: tuple[str, ...]) -> Any:
    name, hints, known = public_name(cls), field_types(cls), [f for f in fields(cls) if f.init]
    names = [f.name for f in known]
    for key in data:
        if key != "type" and key not in names:
            raise ConfigError(unknown(key, names, name))
    for f in known:
        if f.name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{name} lacks its field {f.name!r}. Add it.")
    return cls(**{k: read(data[k], hints.get(k, Any), f"{name}.{k}", trusted) for k in names if k in data})


def unknown(name: str, names: list[str], where: str) -> str:
    """What to say of a name that is none of ``names``."""
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"It has {', '.join(names) or 'no fields'}."
    return f"{where} has no field {name!r}. {hint}"
