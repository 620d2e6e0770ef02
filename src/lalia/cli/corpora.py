"""Commands that work on many recordings."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lalia.cli.console import progress, show, tell
from lalia.cli.options import DEFAULT_MODEL, Corpora, Json, Seed, Settings, overrides_of
from lalia.errors import AudioError, ConfigError, DataError
from lalia.folders import output_folder

if TYPE_CHECKING:
    from lalia.audio import Audio
    from lalia.data import Utterance

__all__ = ["fit_codec", "fit_units", "tokenize"]

_SHOWN = 20
"""Skipped recordings are told one by one up to here; the report has them all."""


def tokenize(
    paths: Corpora,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for the shards.")],
    tokenizer: Annotated[str, typer.Option(help="A model or a saved tokenizer.")] = DEFAULT_MODEL,
    stream: Annotated[str, typer.Option(help="The name of the stream.")] = "units",
    workers: Annotated[int, typer.Option(min=1, help="Threads that read sound.")] = 2,
    rank: Annotated[int, typer.Option(min=0, help="Which of --world processes or machines this is.")] = 0,
    world: Annotated[int, typer.Option(min=1, help="How many share the work.")] = 1,
    as_json: Json = False,
) -> None:
    """A corpus to token shards with a manifest; run it again to resume."""
    from lalia.data import discover, tokenize_corpus
    from lalia.model import load_tokenizer, save_tokenizer
    from lalia.train import TOKENIZERS, begun_with, learn, level_of

    if not re.fullmatch(r"[A-Za-z]\w*", stream):
        raise ConfigError(f"The stream name {stream!r} cannot be used. Take letters, digits and _, a letter first.")
    manifest = discover(paths)
    made = load_tokenizer(tokenizer)
    home = output / TOKENIZERS / stream
    begun_with(home, made)
    if world > 1 and not getattr(made, "fitted", True):
        raise ConfigError(f"The tokenizer {tokenizer} has learned nothing yet. Let one process begin, without --world.")

    def load(u: "Utterance") -> "Audio":
        return u.load(sample_rate=made.sample_rate)

    with output_folder(output, keep=lambda: world > 1):
        if learn(made, manifest, load, stream):
            tell(f"Fitted {type(made).__name__} on the recordings")
            if not home.exists():
                save_tokenizer(made, home)
        with progress("Tokenizing", "s") as report:
            done = tokenize_corpus(
                manifest,
                made,
                output,
                stream=stream,
                level=level_of(made, manifest, load),
                num_workers=workers,
                rank=rank,
                world=world,
                progress=report,
            )
        if not done.done and done.complete:
            raise DataError(_nothing(done.total, [f"{s.path} {s.reason}" for s in done.skipped]))
        if rank == 0:
            save_tokenizer(made, home)
    _tell_skipped([f"{s.path}: {s.reason}" for s in done.skipped])
    pace = f" at {1 / done.real_time_factor:.0f} x real time" if done.real_time_factor else ""
    skipped = f"; {len(done.skipped)} skipped (see report.json)" if done.skipped else ""
    show(
        done.to_dict() | {"path": str(output), "identity": made.identity},
        f"{output}: {done.done} of {done.total} recordings, {done.hours:.2f} h,{pace or ' already there'}{skipped}",
        as_json=as_json,
    )


def fit_units(
    paths: Corpora,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for the tokenizer.")],
    encoder: Annotated[str, typer.Option(help="Known weights, a directory or a hub id.")] = "whisper-tiny.en",
    layer: Annotated[int | None, typer.Option(min=1, help="Of the encoder, from 1; the last by default.")] = None,
    clusters: Annotated[int, typer.Option(min=2, help="Size of the codebook.")] = 500,
    pool: Annotated[int, typer.Option(min=1, help="Frames averaged; 2 gives 25 Hz.")] = 1,
    deduplicate: Annotated[bool, typer.Option(help="One token for a run of equal codes.")] = True,
    standardize: Annotated[bool, typer.Option(help="Scale features to unit variance first.")] = True,
    passes: Annotated[int, typer.Option(min=1, help="Most passes of k-means.")] = 10,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit a k-means tokenizer on a corpus, for any language; see `lalia tokenize --tokenizer`."""
    from lalia.data import discover
    from lalia.model import save_tokenizer
    from lalia.store import DESCRIPTION
    from lalia.tokenizers import SSLUnits

    manifest = discover(paths)
    if (output / DESCRIPTION).exists():
        raise ConfigError(f"{output} holds a tokenizer or a model already. Name another folder.")
    made: SSLUnits = SSLUnits.Config(
        encoder, layer=layer, clusters=clusters, pool=pool, deduplicate=deduplicate, standardize=standardize
    ).build()
    skipped = [f"{s.path}: {s.reason}" for s in manifest.skipped]
    with output_folder(output):
        with progress("Listening", "s") as report:
            made.fit(_recordings(manifest, made.sample_rate, skipped, report), passes=passes, seed=seed)
        save_tokenizer(made, output)
    _tell_skipped(skipped)
    count = f"; {len(skipped)} recordings skipped" if skipped else ""
    show(
        {"path": str(output), "identity": made.identity, "clusters": clusters, "skipped": len(skipped)},
        f"{output}: {clusters} units of {encoder}, identity {made.identity[:12]}{count}",
        as_json=as_json,
    )


def fit_codec(
    paths: Corpora,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for the run, and then the codec.")],
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop after this time.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates. [default: 20000]")] = None,
    init: Annotated[str | None, typer.Option(help="A trained codec to begin with.")] = None,
    settings: Settings = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="The smallest form, to see that it works.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the GPU by default where there is one.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a codec on recordings; see `lalia tokenize` and `lalia resynthesize --tokenizer`."""
    from lalia.config import override
    from lalia.model import load_tokenizer
    from lalia.train import CodecRun, train_codec

    run = CodecRun().tiny() if tiny else CodecRun()
    for path, text in overrides_of(settings).items():
        run = override(run, path, text)
    changes: dict[str, Any] = {"seed": seed}
    changes |= {} if minutes is None else {"max_seconds": 60 * minutes}
    changes |= {} if steps is None else {"max_steps": steps}
    run = replace(run, trainer=replace(run.trainer, **changes))
    train_codec(run, paths, output, init=init, resume=resume, device=device, tell=tell)
    if os.environ.get("RANK", "0") == "0":
        made = load_tokenizer(output)
        kind = made.spec.kind
        show(
            {
                "path": str(output),
                "identity": made.identity,
                "sample_rate": made.sample_rate,
                "frame_rate": made.spec.frame_rate,
                "num_codebooks": kind.num_codebooks,
                "codebook_size": kind.codebook_size,
            },
            f"{output}: a codec of {kind.num_codebooks} x {kind.codebook_size} codes at {made.spec.frame_rate:g} Hz. "
            f"Try: lalia resynthesize AUDIO --tokenizer {output}",
            as_json=as_json,
        )


def _recordings(manifest: Any, sample_rate: int, skipped: list[str], report: Any) -> "Iterator[Audio]":
    """What can be read; the rest is noted."""
    heard, used = 0.0, 0
    for u in manifest:
        try:
            audio = u.load(sample_rate=sample_rate)
        except AudioError as error:
            skipped.append(str(error))
        else:
            used += 1
            yield audio
        heard += u.duration
        report(heard, manifest.seconds)
    if not used:
        raise DataError(_nothing(len(skipped), skipped))


def _nothing(total: int, reasons: list[str]) -> str:
    first = f" ({reasons[0].rstrip('.')})" if reasons else ""
    return f"None of {total} recordings could be used{first}. Give recordings with speech in them."


def _tell_skipped(lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        tell(f"skipped {line}")
    if len(lines) > _SHOWN:
        tell(f"skipped {len(lines) - _SHOWN} more")
