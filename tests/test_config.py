import dataclasses
import importlib
import json
import math
import pkgutil
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lalia
from lalia.config import Configurable, Configuration, from_dict, override, to_dict
from lalia.errors import ConfigError, LaliaError
from lalia.recipe import Recipe
from lalia.recipes.mini_gslm import mini_gslm

# -- every configuration of the package -----------------------------------------------------------


def configurations() -> list[type[Configuration]]:
    for module in pkgutil.walk_packages(lalia.__path__, "lalia."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def below(cls: type[Configuration]) -> Iterator[type[Configuration]]:
        for sub in cls.__subclasses__():
            yield sub
            yield from below(sub)

    found = {
        c for c in below(Configuration) if c.__module__.startswith("lalia.") and hasattr(c, "__dataclass_fields__")
    }
    return sorted(found - {Configurable.Config}, key=lambda c: (c.__module__, c.__qualname__))


PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-3, 4096),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    str: st.text(max_size=5) | st.sampled_from(["units", "4", "null", "lalia.config"]),
    types.NoneType: st.none(),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Whatever an annotation allows."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in PLAIN:
        return PLAIN[hint]
    if hint is Any:
        return st.recursive(
            st.one_of(*PLAIN.values()),
            lambda inner: (
                st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "a"]), inner, max_size=2)
            ),
            max_leaves=4,
        )
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(values, args))
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple and args[-1] is Ellipsis:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, args))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return st.dictionaries(st.sampled_from(["units", "text", "type"]), values(args[1]), max_size=2)
    if isinstance(hint, type) and issubclass(hint, Configuration):
        return st.sampled_from([example(c) for c in CONFIGURATIONS if issubclass(c, hint) and c not in ABSTRACT])
    raise AssertionError(f"how is a {hint} drawn?")


CONFIGURATIONS = configurations()

GIVEN: Mapping[str, Mapping[str, Any]] = {
    "Recipe": {"streams": {}, "lms": {}},
    "Chain.Config": {"stages": (), "vocoder": lambda: example_of("GriffinLim.Config")},
    "CodecDecoder.Config": {"codec": lambda: example_of("Codec.Config")},
    "Stream": {"tokenizer": lambda: example_of("SSLUnits.Config")},
    "Chunks": {"sizes": {"text": 2, "units": 5}},
    "Switch": {"switched": ("text", "units")},
    "Parallel": {"parallel": ("units",)},
    "Merge": {"merged": ("units",)},
    "Concat": {"parts": lambda: (example_of("Flat"),)},
    "Transformer.Config": {"num_layers": 1, "num_heads": 2, "dim": 8},
}
"""Fields of which not every value will do."""

ABSTRACT = {
    c
    for c in CONFIGURATIONS
    if c.__qualname__ in ("Layout", "Task", "Quantizer.Config", "Vocoder.Config", "Stage.Config", "UnitVocoder.Config")
}

EASY = {str: "units", int: 2, float: 1.0, bool: True}


def example_of(name: str) -> Any:
    return example(next(c for c in CONFIGURATIONS if c.__qualname__ == name))


def example(cls: type[Configuration]) -> Any:
    """One of them, with its defaults."""
    if cls in ABSTRACT:
        return example(next(c for c in CONFIGURATIONS if issubclass(c, cls) and c not in ABSTRACT))
    hints, given_ = typing.get_type_hints(cls), GIVEN.get(cls.__qualname__, {})
    made = {}
    for f in fields(cls):
        if f.name in given_:
            value = given_[f.name]
            made[f.name] = value() if callable(value) else value
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            made[f.name] = easy(hints[f.name])
    return cls(**made)


def easy(hint: Any) -> Any:
    """A value for a field that has no default."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in EASY:
        return EASY[hint]
    if origin in (typing.Union, types.UnionType):
        return easy(args[0])
    if origin is tuple:
        return (easy(args[0]),)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {}
    assert issubclass(hint, Configuration)
    return example(hint)


def test_there_is_something_to_test() -> None:
    names = {c.__qualname__ for c in CONFIGURATIONS}
    assert {"Recipe", "SpeechLM.Config", "SSLUnits.Config", "Windows", "StreamSpec", "Flat"} <= names
    assert {c.__qualname__ for c in ABSTRACT} <= names
    assert set(GIVEN) <= names


@pytest.mark.parametrize("cls", [c for c in CONFIGURATIONS if c not in ABSTRACT], ids=lambda c: c.__qualname__)
def test_default_configuration_is_written_and_read(cls: type[Configuration]) -> None:
    config = example(cls)
    data = json.loads(json.dumps(to_dict(config)))
    again = from_dict(data)
    assert type(again) is cls
    assert again == config
    assert hash(again) == hash(config)
    assert to_dict(again) == data
    assert data["type"].startswith("lalia."), "a name outside of the package could not be read again"
    tiny = config.tiny()
    assert type(tiny) is cls
    assert from_dict(to_dict(tiny)) == tiny


@given(data=st.data(), cls=st.sampled_from([c for c in CONFIGURATIONS if c not in ABSTRACT and fields(c)]))
def test_any_configuration_is_written_and_read(data: st.DataObject, cls: type[Configuration]) -> None:
    f = data.draw(st.sampled_from(fields(cls)))
    value = data.draw(values(typing.get_type_hints(cls)[f.name]))
    try:
        config = replace(example(cls), **{f.name: value})
    except (LaliaError, ZeroDivisionError):
        return  # a value that the class refuses
    again = from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


def test_whole_recipe_is_written_and_read() -> None:
    recipe = mini_gslm()
    again = from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert isinstance(again, Recipe)
    assert list(again.lms) == list(recipe.lms)
    assert from_dict(to_dict(recipe.tiny())) == recipe.tiny() != recipe


# -- configurations of these tests ----------------------------------------------------------------


@dataclass(frozen=True)
class Leaf(Configuration):
    size: int = 8
    rate: float | None = None

    def tiny(self) -> "Leaf":
        return replace(self, size=1)


@dataclass(frozen=True)
class Other(Configuration):
    size: str = "large"


@dataclass(frozen=True)
class Tree(Configuration):
    name: str
    _: KW_ONLY
    leaf: Leaf = Leaf()
    either: Leaf | Other | None = None
    leaves: tuple[Leaf, ...] = ()
    named: Mapping[str, Leaf] = field(default_factory=dict)
    pair: tuple[int, float] = (1, 2.0)
    kind: Literal["a", "b", 1] = "a"
    flag: bool = False
    words: Mapping[str, str] = field(default_factory=dict)
    plain: Mapping[str, Any] | None = None
    anything: Any = None


class Thing(Configurable):
    """With parameters."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        size: int

    def __init__(self, config: Config, extra: int = 0, *, more: int = 0) -> None:
        self.config, self.extra, self.more = config, extra, more


class Inherited(Thing):
    """With those of its parent."""


class Extended(Thing):
    """With more."""

    @dataclass(frozen=True)
    class Config(Thing.Config):
        colour: str = "red"


HERE = (__name__.split(".")[0],)


def again(value: Any) -> Any:
    return from_dict(json.loads(json.dumps(to_dict(value))), trust=HERE)


FULL = Tree(
    "oak",
    leaf=Leaf(3, 0.5),
    either=Other("small"),
    leaves=(Leaf(1), Leaf(2)),
    named={"b": Leaf(4), "a": Leaf(5)},
    pair=(3, 4.0),
    kind=1,
    flag=True,
    words={"type": "a word, not a tag"},
    plain={"model_type": "x", "rope": {"type": "linear", "factor": 2.0}, "sizes": [1, 2], "none": None},
    anything={"type": "dynamic"},
)


def test_everything_is_written_and_read() -> None:
    made = again(FULL)
    assert made == FULL
    assert made.named["b"] == Leaf(4)
    assert list(made.named) == ["b", "a"]
    assert made.plain["sizes"] == [1, 2], "somebody else's data stays as it is"
    assert isinstance(made.leaves, tuple)
    assert again({"x": [FULL, 3, None]}) == {"x": (FULL, 3, None)}


def test_configuration_in_an_untyped_field() -> None:
    assert again(Tree("oak", anything=[Leaf(3)])).anything == [Leaf(3)]
    assert again(Tree("oak", plain={"leaf": Leaf(3)})).plain == {"leaf": Leaf(3)}


def test_infinity_survives() -> None:
    assert again(Leaf(rate=math.inf)) == Leaf(rate=math.inf)


def test_whole_numbers_become_what_is_asked_for() -> None:
    data = to_dict(FULL) | {"pair": [3.0, 4]}
    assert from_dict(data, trust=HERE).pair == (3, 4.0)
    assert isinstance(from_dict(data, trust=HERE).pair[0], int)
    assert isinstance(from_dict(data, trust=HERE).pair[1], float)


def test_written_alike_is_equal() -> None:
    a = Tree("oak", leaves=[Leaf()], named=types.MappingProxyType({"x": Leaf()}), plain={"y": [1, {"z": (2,)}]})  # type: ignore[arg-type]
    b = Tree("oak", leaves=(Leaf(),), named={"x": Leaf()}, plain={"y": (1, {"z": [2]})})
    assert a == b == again(a)
    assert hash(a) == hash(b)
    assert len({a, b, FULL}) == 2
    assert a != replace(b, name="elm")
    assert Leaf() != Other()
    assert Leaf() != 8
    assert Tree("oak", words={"x": "1"}) != Tree("oak", words={"x": "2"}) != Tree("oak", words={"y": "2"})


def test_configuration_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.name = "elm"  # type: ignore[misc]


def test_build() -> None:
    made = Thing.Config(3).build(4, more=5)
    assert isinstance(made, Thing)
    assert (made.config.size, made.extra, made.more) == (3, 4, 5)
    assert isinstance(Extended.Config(3).build(), Extended)
    assert Extended.Config(3).build().config.colour == "red"
    assert Inherited.Config is Thing.Config
    assert again(Extended.Config(3, colour="blue")) == Extended.Config(3, colour="blue")


# -- what is refused ------------------------------------------------------------------------------


def refused(changes: Mapping[str, Any], *, trust: tuple[str, ...] = HERE) -> str:
    with pytest.raises(ConfigError) as caught:
        from_dict(to_dict(Tree("oak")) | changes, trust=trust)
    return str(caught.value)


def test_unknown_field_is_refused_with_a_suggestion() -> None:
    assert refused({"leef": 1}).endswith(".Tree has no field 'leef'. Did you mean 'leaf'?")
    assert "has no field 'zzz'. It has name, leaf, either," in refused({"zzz": 1})


def test_missing_field_is_named() -> None:
    data = to_dict(Tree("oak"))
    del data["name"]
    with pytest.raises(ConfigError, match=r"Tree lacks its field 'name'\. Add it\."):
        from_dict(data, trust=HERE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, ".name is 3, but must be str."),
        ({"name": None}, ".name is None, but must be str."),
        ({"flag": 1}, ".flag is 1, but must be bool."),
        ({"pair": [1]}, ".pair is [1], but must be tuple[int, float]."),
        ({"pair": [1, "2"]}, ".pair.1 is '2', but must be float."),
        ({"pair": [True, 2]}, ".pair.0 is True, but must be int."),
        ({"pair": [1.5, 2]}, ".pair.0 is 1.5, but must be int."),
        ({"pair": "12"}, ".pair is '12', but must be tuple[int, float]."),
        ({"kind": "c"}, ".kind is 'c', but must be Literal['a', 'b', 1]."),
        ({"kind": True}, ".kind is True, but must be"),
        ({"leaf": {"size": 3}}, ".leaf is {'size': 3}, but must be Leaf."),
        ({"leaf": to_dict(Other())}, ".leaf is Other(size='large'), but must be Leaf."),
        ({"either": to_dict(Tree("oak"))}, ", but must be"),
        ({"either": to_dict(Leaf()) | {"size": "x"}}, "Leaf.size is 'x', but must be int."),
        ({"either": to_dict(Leaf()) | {"syze": 1}}, "Leaf has no field 'syze'. Did you mean 'size'?"),
        ({"leaves": [to_dict(Leaf()), 3]}, ".leaves.1 is 3, but must be Leaf."),
        ({"named": {"x": 3}}, ".named.x is 3, but must be Leaf."),
        ({"named": [1]}, ".named is [1], but must be"),
        ({"words": {"x": 1}}, ".words.x is 1, but must be str."),
        ({"type": "lalia.config.nothing"}, "'lalia.config.nothing', which does not exist here"),
        ({"type": "lalia.nothing.Tree"}, "'lalia.nothing.Tree', which does not exist here"),
        ({"type": "lalia"}, "'lalia', which does not exist here"),
        ({"type": "lalia.config.to_dict"}, "'lalia.config.to_dict' is not a configuration of lalia"),
        ({"type": "lalia.audio.Audio"}, "'lalia.audio.Audio' is not a configuration of lalia"),
    ],
)
def test_wrong_values_are_refused(changes: Mapping[str, Any], message: str) -> None:
    assert message in refused(changes)


def test_other_packages_are_refused_unless_trusted() -> None:
    message = refused({"type": "os.path.join"})
    assert message.startswith("The configuration names 'os.path.join', outside lalia, ")
    assert message.endswith("If you trust that package, load with trust=('os',).")
    assert "outside lalia. If you trust" in refused({}, trust=())
    assert "is not a configuration" in refused({"type": "os.path.join"}, trust=("os",))
    # Also where it is inside, and nothing of it is imported.
    assert "outside lalia" in refused({"leaf": {"type": "antigravity.fly"}})
    assert "antigravity" not in sys.modules


def test_what_is_not_plain_cannot_be_written() -> None:
    for value in ({1: "a"}, {"x": object()}, {3}, Thing, Tree("oak", anything=b"x")):
        with pytest.raises(ConfigError, match="cannot be saved"):
            to_dict(value)


# -- tiny -----------------------------------------------------------------------------------------


def test_tiny_goes_all_the_way_down() -> None:
    tiny = replace(FULL, either=Leaf(9)).tiny()
    assert tiny.leaf == Leaf(1, 0.5)
    assert tiny.either == Leaf(1)
    assert tiny.leaves == (Leaf(1), Leaf(1))
    assert tiny.named == {"b": Leaf(1), "a": Leaf(1)}
    assert (tiny.name, tiny.pair, tiny.plain) == (FULL.name, FULL.pair, FULL.plain)


# -- override -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text", "changed"),
    [
        ("name", "elm", {"name": "elm"}),
        ("name", "4", {"name": "4"}),
        ("name", "yes", {"name": "yes"}),
        ("name", "1e3", {"name": "1e3"}),
        ("name", "2024-01-01", {"name": "2024-01-01"}),
        ("name", "a: [", {"name": "a: ["}),
        ("name", '"quoted"', {"name": "quoted"}),
        ("flag", "false", {"flag": False}),
        ("kind", "b", {"kind": "b"}),
        ("kind", "1", {"kind": 1}),
        ("pair", "[5, 6]", {"pair": (5, 6.0)}),
        ("pair.1", "1e-3", {"pair": (3, 1e-3)}),
        ("pair.0", "1e3", {"pair": (1000, 4.0)}),
        ("leaf.rate", "1e-4", {"leaf": Leaf(3, 1e-4)}),
        ("leaf.rate", "2", {"leaf": Leaf(3, 2.0)}),
        ("leaf.rate", "null", {"leaf": Leaf(3)}),
        ("leaves.1.size", "7", {"leaves": (Leaf(1), Leaf(7))}),
        ("named.b.size", "7", {"named": {"b": Leaf(7), "a": Leaf(5)}}),
        ("named", "{}", {"named": {}}),
        ("words.type", "no", {"words": {"type": "no"}}),
        ("either", "null", {"either": None}),
        ("plain.rope.factor", "4", {"plain": {**FULL.plain, "rope": {"type": "linear", "factor": 4}}}),  # type: ignore[dict-item]
        ("plain.sizes.0", "9", {"plain": {**FULL.plain, "sizes": [9, 2]}}),  # type: ignore[dict-item]
        ("anything", "[1, {a: 2}]", {"anything": [1, {"a": 2}]}),
    ],
)
def test_override(path: str, text: str, changed: Mapping[str, Any]) -> None:
    before = to_dict(FULL)
    assert override(FULL, path, text) == replace(FULL, **changed)
    assert to_dict(FULL) == before


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("nam", "x", "has no field 'nam'. Did you mean 'name'?"),
        ("leaf.syze", "1", "leaf has no field 'syze'. Did you mean 'size'?"),
        ("named.c.size", "1", "named has no field 'c'."),
        ("leaves.2.size", "1", "leaves has 2 entries, not '2'. Count from 0."),
        ("leaves.x", "1", "leaves has 2 entries, not 'x'."),
        ("leaves.-1", "1", "leaves has 2 entries, not '-1'."),
        ("name.x", "1", "name is 'oak' and has nothing named 'x'. Shorten the path."),
        ("", "1", "has no field ''."),
        ("leaf.size", "many", "leaf.size is 'many', but must be int."),
        ("leaf.size", "1.5", "leaf.size is 1.5, but must be int."),
        ("leaf.size", "null", "leaf.size is None, but must be int."),
        ("leaf", "3", "leaf is 3, but must be Leaf."),
        ("named.b", "3", "named.b is 3, but must be Leaf."),
        ("leaves.0", "3", "leaves.0 is 3, but must be Leaf."),
        ("pair.0", "x", "pair.0 is 'x', but must be int."),
        ("flag", "maybe", "flag is 'maybe', but must be bool."),
        ("kind", "c", "kind is 'c', but must be Literal"),
        ("leaf", "{type: os.path.join}", "outside lalia"),
    ],
)
def test_override_that_cannot_be(path: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(FULL, path, text)
    assert message in str(caught.value)


def test_override_of_a_recipe() -> None:
    recipe = mini_gslm()
    assert override(recipe, "lms.ulm.backbone.num_layers", "4").lms["ulm"].backbone.num_layers == 4  # type: ignore[union-attr]
    assert override(recipe, "stages.0.trainer.learning_rate", "1e-4").stages[0].trainer.learning_rate == 1e-4
    bare = replace(recipe, stages=())
    swapped = override(bare, "vocoder", "{type: lalia.vocoders.GriffinLim, stream: units}")
    assert type(swapped.vocoder).__qualname__ == "GriffinLim.Config"
    assert override(bare, "vocoder", "null").vocoder is None
    with pytest.raises(ConfigError, match=r"lms\.ulm is 4, but must be SpeechLM.Config"):
        override(recipe, "lms.ulm", "4")
