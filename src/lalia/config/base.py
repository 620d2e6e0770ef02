"""What every configuration is, and the class that one builds."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Self

__all__ = ["Configurable", "Configuration"]


@dataclass(frozen=True)
class Configuration:
    """Plain, frozen data that describes something; the base of every config.

    Two are equal when they are written alike: a list counts as the tuple, whatever the kind of a mapping.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # dataclass leaves alone what the class has itself, and inherits neither. Its own methods would find
        # [1] and (1,) different and fail to hash a mapping.
        for name in ("__eq__", "__hash__"):
            if name not in cls.__dict__:
                setattr(cls, name, getattr(Configuration, name))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return _key(self) == _key(other)

    def __hash__(self) -> int:
        return hash(_key(self))

    def to_dict(self) -> dict[str, Any]:
        """This value as tagged plain data (JSON types only)."""
        from lalia.config.plain import to_dict

        data: dict[str, Any] = to_dict(self)
        return data

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


def _key(value: Any) -> Any:
    """What is equal and has the same hash for values that are written alike."""
    if is_dataclass(value) and not isinstance(value, type):
        return type(value), tuple(_key(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, Mapping):
        return Mapping, frozenset((k, _key(v)) for k, v in value.items())
    if isinstance(value, list | tuple):
        return tuple(_key(v) for v in value)
    return value
