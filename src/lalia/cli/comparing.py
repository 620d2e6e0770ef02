"""The command that compares."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lalia.cli.console import progress, show, tell
from lalia.cli.options import Device, Dtype, Json, Seed, load_model

__all__ = ["compare"]

_USUAL = ("mini-words", "mini-grammar", "mini-stories")
"""The benchmarks that are meant where none is named."""


def compare(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help="Bundled models, directories, hub ids; codecs too.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The page, .html; results are kept in a folder beside it.")
    ] = Path("comparison.html"),
    data: Annotated[
        Path | None, typer.Option("--data", help="Recordings to work with; the bundled questions by default.")
    ] = None,
    benchmarks: Annotated[
        list[str] | None,
        typer.Option(
            "--benchmarks",
            metavar="NAME",
            help="Work to do, named again and again: resynthesis, units, bit-rate, continuation, speed, and what "
            "lalia eval has; the first five, mini-words, mini-grammar and mini-stories by default.",
        ),
    ] = None,
    items: Annotated[
        Path | None, typer.Option("--items", help="A folder with an .item file and its recordings, for ABX.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first items only, for a first look.")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Recordings that are continued.")] = 20,
    audio: Annotated[int, typer.Option(min=0, help="Recordings that can be heard in the page.")] = 4,
    results: Annotated[
        Path | None, typer.Option("--from", metavar="FOLDER", help="Write the page of these results, and run nothing.")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Compare models on the same work, in one page with tables, plots and sound. A run that was stopped goes on."""
    from lalia.errors import ConfigError
    from lalia.evaluation.comparison import gather, save_page, summary
    from lalia.folders import check_writable

    if output.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"The page was to be {output.name}. Give -o a name that ends in .html.")
    check_writable(output)
    if results is not None:
        if models:
            raise ConfigError("--from takes the models that its folder has. Leave out their names.")
        folder, comparison = results, gather(results)
    else:
        folder = output.with_suffix("")
        comparison = _run(models or [], folder, data, benchmarks, items, limit, prompts, seed, device, dtype)
    save_page(comparison, folder, output, audio=audio)
    found = summary(comparison)
    text = "\n".join([m["said"] for m in found["measures"].values() if m["verdict"] != "none"] + [str(output)])
    show({"page": str(output), "results": str(folder), **found}, text, as_json=as_json)


def _run(
    models: list[str],
    folder: Path,
    data: Path | None,
    names: list[str] | None,
    items: Path | None,
    limit: int | None,
    prompts: int,
    seed: int,
    device: str,
    dtype: str,
) -> dict[str, Any]:
    from lalia.data import Manifest, discover
    from lalia.errors import ConfigError
    from lalia.evaluation.benchmarks import find, questions
    from lalia.evaluation.comparison import WORKS, Judges, Subject, Task
    from lalia.evaluation.comparison import compare as run

    if not models:
        raise ConfigError("No model was named. Name one or more, or --from a folder of results.")
    works = list(WORKS) if names is None else [n for n in dict.fromkeys(names) if n in WORKS]
    others = list(_USUAL) if names is None else [n for n in dict.fromkeys(names) if n not in WORKS]
    find(others)
    given = None if data is None else discover([data])
    every = [q.utterance for q in questions()] if given is None else list(given)
    utterances = sorted(every, key=lambda u: u.id)[:limit]
    with progress("Comparing") as report:
        task = Task(
            utterances,
            Judges(folder / "heard"),
            prompts=prompts,
            phones=items,
            limit=limit,
            seed=seed,
            progress=lambda _, done, total: report(done, total),
        )
        return run(
            [Subject(name, _loader(name, device, dtype), _identity(name)) for name in models],
            task,
            folder,
            works=works,
            benchmarks=others,
            data=None if given is None else Manifest(utterances),
            tell=tell,
        )


def _loader(name: str, device: str, dtype: str) -> Any:
    """What loads a model, or a tokenizer alone.

    :raises LaliaError: there is none by that name.
    """
    from lalia.evaluation.comparison import Alone
    from lalia.model import find, holds_tokenizer, load_tokenizer

    if holds_tokenizer(find(name)):
        return lambda: Alone(load_tokenizer(name))
    return lambda: load_model(name, device, dtype)


def _identity(name: str) -> str | None:
    """SHA-256 of the weights, where they are in one file."""
    from lalia.files import sha256
    from lalia.model import find

    file = find(name) / "model.safetensors"
    return sha256(file) if file.is_file() else None
