"""The command that lets people judge."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lalia.cli.console import show
from lalia.cli.options import Json, Seed

__all__ = ["listening_test"]


def listening_test(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of the test: where ratings are kept.")],
    systems: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=RECORDINGS]...", help="A system and the folder of its recordings."),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="JSON lines with item, system and path, in place of folders.")
    ] = None,
    kind: Annotated[
        str, typer.Option("--kind", help="mos, mmos (meaning), pmos (prosody), smos (speaker) or cmos (pairs).")
    ] = "mos",
    prompts: Annotated[Path | None, typer.Option("--prompts", help="Recordings that were continued.")] = None,
    references: Annotated[Path | None, typer.Option("--references", help="Recordings of the speakers.")] = None,
    ratings: Annotated[
        int | None, typer.Option("--ratings", min=1, help="Of each listener; each item once by default.")
    ] = None,
    codes: Annotated[
        Path | None, typer.Option("--codes", help="Codes of listeners, one a line; by default they choose their own.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen. Anything but this machine needs --codes.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8999,
    results: Annotated[
        bool, typer.Option("--results", help="Print what came of it so far, and serve nothing.")
    ] = False,
    most_failed: Annotated[int, typer.Option("--most-failed", min=0, help="Checks that may be failed.")] = 1,
    least_correlation: Annotated[
        float,
        typer.Option("--least-correlation", min=-1.0, max=1.0, help="With the other listeners; -1 asks for none."),
    ] = 0.25,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Let people rate recordings, blind, on a page; --results says what they found."""
    from lalia.evaluation import listening_test as tests

    if results:
        limit = None if least_correlation <= -1 else least_correlation
        found = tests.analyse_folder(folder, most_failed=most_failed, least_correlation=limit, seed=seed)
        show(found, tests.table(found), as_json=as_json)
        return
    _serve(
        folder, _material(systems or [], manifest, prompts, references), kind, seed, ratings, codes, host, port, as_json
    )


def _material(systems: list[str], manifest: Path | None, prompts: Path | None, references: Path | None) -> Any:
    """:raises LaliaError: it cannot be used."""
    from lalia.errors import ConfigError
    from lalia.evaluation.listening_test import Material

    if manifest is not None:
        if systems or prompts or references:
            raise ConfigError("There is a manifest and folders too. Give one of them.")
        return Material.from_manifest(manifest)
    found: dict[str, Path] = {}
    for system in systems:
        name, is_named, place = system.partition("=")
        if not is_named or not name or not place:
            raise ConfigError(f"{system!r} does not say which system it is. Give NAME=RECORDINGS.")
        if name in found:
            raise ConfigError(f"System {name!r} is given twice. Give each once.")
        found[name] = Path(place)
    if not found:
        raise ConfigError("There is no system to listen to. Give NAME=RECORDINGS for each, or --manifest.")
    return Material.from_folders(found, prompts=prompts, references=references)


def _serve(
    folder: Path,
    material: Any,
    kind: Any,
    seed: int,
    ratings: int | None,
    codes: Path | None,
    host: str,
    port: int,
    as_json: bool,
) -> None:
    from lalia.errors import MissingDependency
    from lalia.evaluation.listening_test import ListeningTest

    try:
        from lalia.server.listening_test import run
    except ModuleNotFoundError as error:
        raise MissingDependency(str(error.name), "server") from None
    known = None if codes is None else _codes(codes)
    test = ListeningTest(material, folder, kind=kind, seed=seed, ratings=ratings, codes=known)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def ready() -> None:
        told = f"Listen at {url} (Ctrl-C stops it; the same command goes on, with --results it says what was found)."
        show({"url": url, "folder": str(folder)}, told, as_json=as_json)

    try:
        run(test, host=host, port=port, codes=known is not None, ready=ready)
    finally:
        test.close()


def _codes(path: Path) -> list[str]:
    """:raises LaliaError: the file cannot be read, or has none."""
    from lalia.errors import ConfigError

    try:
        codes = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The codes in {path} cannot be read ({error}). Give a text file.") from None
    if not codes:
        raise ConfigError(f"{path} has no code in it. Give one a line.")
    return codes
