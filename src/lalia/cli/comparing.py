"""The command that compares."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lalia.cli.console import progress, show, tell
from lalia.cli.judging import identity_of, judges, measured
from lalia.cli.options import Device, Dtype, Json, Seed

__all__ = ["compare"]

_USUAL = (
    "resynthesis",
    "mini-phones",
    "bit-rate",
    "continuations",
    "speed",
    "likelihood",
    "mini-words",
    "mini-grammar",
    "mini-stories",
)
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
            help="Any that lalia eval has, named again and again; by default resynthesis, mini-phones, bit-rate, "
            "continuations, speed, likelihood, mini-words, mini-grammar, mini-stories.",
        ),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option("--items", help="For mini-phones: a manifest with phones, or a folder with an .item file."),
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
    """Compare models on the same benchmarks, in one page of tables, plots and sound. A run that was stopped goes on."""
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
    from lalia.evaluation.benchmarks import find
    from lalia.evaluation.benchmarks.continuations import Continuations
    from lalia.evaluation.benchmarks.phones import Phones
    from lalia.evaluation.comparison import Subject
    from lalia.evaluation.comparison import compare as run
    from lalia.model import find as find_model

    if not models:
        raise ConfigError("No model was named. Name one or more, or --from a folder of results.")
    own = (Continuations((None,), prompts=prompts), Phones(items))
    named = find(names or _USUAL)
    recordings = None if data is None else discover([data])
    with progress("Comparing") as report:
        return run(
            [
                Subject(called, measured(name, device, dtype), identity_of(name), find_model(name), dtype)
                for called, name in zip(_called(models), models, strict=True)
            ],
            [next((o for o in own if o.name == b.name), b) for b in named],
            folder,
            judges=judges(folder / "heard"),
            data=None if recordings is None else Manifest(recordings),
            limit=limit,
            seed=seed,
            tell=tell,
            progress=lambda _, done, total: report(done, total),
        )


def _called(models: list[str]) -> list[str]:
    """What models are called in the page: by the last part of where they lie, if these are all others."""
    short = [Path(name).name for name in models]
    return short if len(set(short)) == len(models) else models
