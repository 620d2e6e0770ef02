"""Commands about recipes: to train one, to read about them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from lalia.cli.console import progress, show, tell
from lalia.cli.options import Json, Settings, overrides_of, pairs_of

__all__ = ["recipes", "train"]


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A name that `lalia recipes` lists.")],
    data: Annotated[
        list[Path],
        typer.Option("--data", help="A folder of token shards or of recordings, or a manifest; may be given again."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the run.")],
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    settings: Settings = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="The smallest form, over the data's own tokenizer and a ready vocoder.")
    ] = False,
    tokenizers: Annotated[
        list[str] | None,
        typer.Option("--tokenizer", metavar="STREAM=NAME", help="A saved tokenizer in place of a stream's own."),
    ] = None,
    lm: Annotated[
        str | None, typer.Option("--lm", help="Another text LM in the recipe: a directory, or a hub id.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="A model to begin with, as far as its weights fit. [default: the stage's]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the GPU by default where there is one.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random. [default: the recipe's]")] = None,
    as_json: Json = False,
) -> None:
    """Train a recipe's stages; under torchrun, on every process."""
    from lalia.recipes import find
    from lalia.train import train as run_training

    chosen = find(recipe)
    with progress("Preparing", "s") as report:
        run = run_training(
            chosen,
            data,
            output,
            stage=stage,
            tiny=tiny,
            tokenizers=pairs_of("--tokenizer", tokenizers, "codes=my-codec"),
            overrides=overrides_of(settings, "lms.ulm.backbone.num_layers=4"),
            lm=lm,
            init=init,
            resume=resume,
            seed=seed,
            device=device,
            tell=tell,
            progress=report,
        )
    if os.environ.get("RANK", "0") == "0":
        command = "chat" if "user" in chosen.channels else "continue"
        show({"path": str(run)}, f"{run}: trained. Try: lalia {command} AUDIO --model {run}", as_json=as_json)


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them, in full.")] = None,
    as_json: Json = False,
) -> None:
    """The published systems: what each is, what is here, what runs offline."""
    from lalia.overview import describe, table
    from lalia.recipes import find, names

    if name is not None:
        described = describe(find(name))
        show(described.data, described.text, as_json=as_json)
        return
    everything = [describe(find(n)) for n in names()]
    show([d.data for d in everything], table(everything), as_json=as_json)
