"""The READMEs keep their word: their commands exist, their Python compiles, and what is marked runs.

A block after the line ``<!-- run -->`` is really run, in an empty folder that has the bundled clip.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.zh-TW.md")
SHELL = ("bash", "console", "sh")
CHECKED = (*SHELL, "python")

_BLOCK = re.compile(
    r"^(?P<run> *<!-- run -->\n+)?(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a README."""

    file: str
    line: int
    language: str
    text: str
    run: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def bare(self) -> tuple[str, bool, tuple[str, ...]]:
        """What both languages share: everything but comments."""
        lines = (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in self.text.splitlines())
        return self.language, self.run, tuple(line for line in lines if line)


def find_blocks(file: str, text: str) -> list[Block]:
    """The blocks of a README whose language is checked."""
    return [
        Block(
            file,
            text.count("\n", 0, found.end("indent")) + 1,
            found["language"],
            textwrap.dedent(found["text"]),
            found["run"] is not None,
        )
        for found in _BLOCK.finditer(text)
        if found["language"] in CHECKED
    ]


@cache
def blocks(file: str) -> tuple[Block, ...]:
    path = ROOT / file
    return tuple(find_blocks(file, path.read_text(encoding="utf-8"))) if path.exists() else ()


def script_of(block: Block) -> str:
    """What a reader would type: a console block also shows prompts and output."""
    text = block.text
    if block.language == "console":
        typed = re.findall(r"^\$ ((?:.*\\\n)*.*)$", text, re.MULTILINE)
        text = "\n".join(re.sub(r"\\\n> ", "\\\n", command) for command in typed)
    return text


def simple_commands(script: str) -> Iterator[list[str]]:
    """The words of every command in a shell script, without redirections, assignments and keywords."""
    for line in re.sub(r"\\\n", " ", script).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        skip = False
        for token in [*lexer, ";"]:
            if skip or token in ("(", ")"):
                skip = False
            elif set(token) <= set("<>&") and set(token) & set("<>"):
                skip = True
            elif set(token) <= set(";|&"):
                if words:
                    yield words
                words = []
            elif words or not (token in ("do", "then", "if", "while", "time", "!") or re.match(r"\w+=", token)):
                words.append(token)


def check_lalia(app: typer.Typer, arguments: list[str]) -> None:
    """Read a command line as the program would, without running it; an error names what is wrong."""
    group: Any = typer.main.get_command(app)
    try:
        context = group.make_context("lalia", list(arguments))
        rest = [*getattr(context, "_protected_args", []), *context.args]
        if rest:
            name, command, rest = group.resolve_command(context, rest)
            command.make_context(name, rest, parent=context)
    except typer.Exit:  # --help and --version
        pass


def check_make(arguments: list[str]) -> None:
    targets = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for word in arguments:
        assert word in targets or word.startswith("-") or "=" in word, f"make has no target {word!r}"


def check_command(words: list[str]) -> None:
    """A command of the README is one that exists."""
    program = Path(words[0]).name
    if program == "lalia":
        from lalia.cli import app

        check_lalia(app, words[1:])
    if program == "make":
        check_make(words[1:])
    for word in words:
        path = Path(word)
        if path.suffix in (".py", ".sh", ".flac") and len(path.parts) > 1 and (ROOT / path.parts[0]).is_dir():
            assert (ROOT / path).exists(), f"{word} does not exist"


def all_blocks(*languages: str) -> list[Block]:
    return [block for file in READMES for block in blocks(file) if block.language in languages]


@pytest.mark.parametrize("file", READMES)
def test_readme_shows_the_two_commands(file: str) -> None:
    shown = [words for b in blocks(file) if b.language in SHELL for words in simple_commands(script_of(b))]
    assert ["make", "demo"] in shown
    assert ["make", "test"] in shown


def test_both_languages_show_the_same_blocks() -> None:
    english, chinese = ([block.bare for block in blocks(file)] for file in READMES)
    assert english == chinese


@pytest.mark.parametrize("block", all_blocks(*SHELL), ids=str)
def test_commands_exist(block: Block) -> None:
    for words in simple_commands(script_of(block)):
        check_command(words)


@pytest.mark.parametrize("block", all_blocks("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", [b for b in blocks(READMES[0]) if b.run], ids=str)
def test_marked_blocks_run(block: Block, tmp_path: Path) -> None:
    """Those of the English README, since the other has the same."""
    (tmp_path / "bin").mkdir()
    lalia = tmp_path / "bin" / "lalia"
    lalia.write_text(f"#!{sys.executable}\nimport sys\nfrom lalia.cli import main\nsys.exit(main())\n")
    lalia.chmod(0o755)
    (tmp_path / "examples").mkdir()
    for clip in (ROOT / "examples").glob("*.flac"):
        shutil.copy(clip, tmp_path / "examples")
    if block.language == "python":
        command = [sys.executable, "-c", block.text]
    else:
        script = script_of(block)
        assert not any(words[0] == "make" for words in simple_commands(script)), "mark no block that calls make"
        command = ["bash", "-euo", "pipefail", "-c", script]
    path = os.pathsep.join([str(lalia.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


# -- the check itself ---------------------------------------------------------------------------

SAMPLE = """\
# Title

```console
$ make demo   # about a minute
wrote continuation.wav
$ FOO=1 lalia continue a.wav \\
>     -o out.wav > log.txt && echo done
```

1. In a list:

   <!-- run -->
   ```bash
   for f in *.wav; do lalia score "$f" | sort; done
   ```

<!-- run -->
```python
import lalia
```

```text
not checked
```
"""


def test_finding_blocks() -> None:
    found = find_blocks("X.md", SAMPLE)
    assert [(b.language, b.run, b.line) for b in found] == [
        ("console", False, 3),
        ("bash", True, 13),
        ("python", True, 18),
    ]
    assert found[1].text == 'for f in *.wav; do lalia score "$f" | sort; done\n'


def test_reading_commands() -> None:
    console, loop, _ = find_blocks("X.md", SAMPLE)
    assert list(simple_commands(script_of(console))) == [
        ["make", "demo"],
        ["lalia", "continue", "a.wav", "-o", "out.wav"],
        ["echo", "done"],
    ]
    assert ["lalia", "score", "$f"] in list(simple_commands(script_of(loop)))


def test_translated_comments_are_no_difference() -> None:
    console, *others = find_blocks("X.md", SAMPLE)
    translated, *_ = find_blocks("Y.md", SAMPLE.replace("about a minute", "約一分鐘"))
    changed, *_ = find_blocks("Y.md", SAMPLE.replace("out.wav", "new.wav"))
    assert console.bare == translated.bare
    assert console.bare != changed.bare
    assert console.bare != others[0].bare


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("continue a.wav -o b.wav", True),
        ("continue a.wav --seconds 3", True),
        ("continue --help", True),
        ("--help", True),
        ("continue", False),
        ("continue a.wav --second 3", False),
        ("continue a.wav --seconds three", False),
        ("continu a.wav", False),
    ],
)
def test_checking_a_command_line(line: str, good: bool) -> None:
    app = typer.Typer()

    @app.command("continue")
    def continue_(audio: str, output: str = typer.Option("", "-o"), seconds: float = 10.0) -> None: ...

    @app.command()
    def score(audio: str) -> None: ...

    if good:
        check_lalia(app, line.split())
    else:
        with pytest.raises(Exception, match=r"(?i)no such|missing|valid"):
            check_lalia(app, line.split())


def test_checking_make() -> None:
    check_make(["demo"])
    check_make(["PYTHON=python3.12", "test"])
    with pytest.raises(AssertionError, match="no target"):
        check_make(["demos"])
