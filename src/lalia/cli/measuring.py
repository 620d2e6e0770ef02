"""The command that measures."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lalia.cli.console import progress, show, tell
from lalia.cli.options import Device, Dtype, Json, Seed, load_model

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A bundled model, the directory of one, or a hub id.")],
    benchmarks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BENCHMARK]...",
            help="answers, transcribe, say, latency, memory, tone, turns, robustness: these by default; and scenes.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Recordings for transcribe, best with texts in a manifest.jsonl.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write everything to this JSON file, item by item.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help="Another model, asked the same in turn.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first items only, for a first look.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, max=512, help="The longest reply, as text.")] = 80,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Measure a model; every figure comes with its interval."""
    from lalia.data import discover
    from lalia.evaluation.benchmarks import Bench, find, table
    from lalia.evaluation.benchmarks import evaluate as run
    from lalia.folders import check_writable

    find(benchmarks or [])
    if output is not None:
        check_writable(output)
    recordings = None if data is None else discover([data])
    loaded = load_model(model, device, dtype)
    peer = None if against is None else load_model(against, device, dtype)
    with progress("Measuring") as report:
        bench = Bench(
            loaded,
            _name(model, loaded),
            model,
            peer=peer,
            peer_name=against,
            data=recordings,
            seed=seed,
            limit=limit,
            max_tokens=max_tokens,
            options=("--device", device, "--dtype", dtype),
            progress=lambda _, done, total: report(done, total),
        )
        result = run(bench, benchmarks or [], out=output, identity=_identity(model), tell=tell)
    show(result, table(result), as_json=as_json)


def _name(given: str, model: Any) -> str:
    """As the recipe is called, where the model is one that its recipe's name stands for; else as it was given."""
    from lalia.model import bundled

    return given if given in bundled() else str(getattr(getattr(model, "recipe", None), "name", given))


def _identity(name: str) -> str | None:
    """SHA-256 of the weights, where they are in one file."""
    from lalia.files import sha256
    from lalia.model import find

    file = find(name) / "model.safetensors"
    return sha256(file) if file.is_file() else None
