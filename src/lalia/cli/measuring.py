"""The command that measures."""

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from lalia.cli.console import progress, show, tell
from lalia.cli.judging import identity_of, judges, measured
from lalia.cli.options import Device, Dtype, Json, Seed, load_model

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A bundled model, the directory of one, or a hub id; a codec too.")
    ],
    benchmarks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BENCHMARK]...",
            help="answers, transcribe, say, latency, memory, tone, turns, robustness, mini-words, mini-grammar, "
            "mini-stories, mini-acoustics, mini-phones, bit-rate: those of these that the model can do, by default; "
            "scenes, speech-pairs, resynthesis, continuations, likelihood, prosody, speed; of files (--data) pairs, "
            "cross-modal, stsp, talking-turns, and public suites, such as mmau, voxeval or superb-ks.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Recordings to work with, best with texts in a manifest.jsonl; for mini-phones with phones, or an "
            ".item file; for pairs their manifest, or a folder of sWUGGY, sBLIMP, StoryCloze or SALMon; for others "
            "what they publish.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write everything to this JSON file, item by item.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help="Another model, asked the same in turn.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first items only, for a first look.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, max=512, help="The longest reply, as text.")] = 80,
    workers: Annotated[int, typer.Option(min=1, help="Processes that ask item by item.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Items that are asked at once.")] = 16,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="Who judges: MODEL@ADDRESS of chat completions (http://…/v1), for suites; the path of a classifier of "
            "sentiment (stsp) or of a judge of turns (talking-turns)."
        ),
    ] = None,
    near: Annotated[
        bool, typer.Option("--near", help="In scenes it answers only who speaks close to the microphone.")
    ] = False,
    asked: Annotated[
        bool, typer.Option("--asked", help="In scenes it answers only what is asked of an assistant.")
    ] = False,
    submission: Annotated[
        Path | None,
        typer.Option(
            "--submission", help="Write the scores of sWUGGY and sBLIMP to this folder, as ZeroSpeech has them."
        ),
    ] = None,
    score_only: Annotated[
        bool, typer.Option("--score-only", help="Score the answers of an earlier run with this -o, and ask for none.")
    ] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Measure a model; every figure comes with its interval. With -o, a run that was stopped goes on."""
    from lalia.data import discover
    from lalia.evaluation.benchmarks import OF_FILES, Bench, find, table
    from lalia.evaluation.benchmarks import evaluate as run
    from lalia.evaluation.public_pairs import hand_in, holds_pairs
    from lalia.folders import check_writable

    find(benchmarks or [])
    if output is not None:
        check_writable(output)
    if submission is not None:
        _check_submission(submission, benchmarks or [], data, limit)
    # What is no recording is read by the benchmark, which says in its own words what is wrong with it.
    files = data is not None and (not OF_FILES.isdisjoint(benchmarks or []) or holds_pairs(data))
    recordings = None if data is None or files else discover([data])
    # Phones with their times, where these are asked for by name; else the set of its own has them.
    read_as_file = files or "mini-phones" in (benchmarks or [])
    load = measured(model, device, dtype)
    loaded = None if score_only else load()
    peer = None if against is None or score_only else load_model(against, device, dtype)
    with progress("Measuring") as report:
        bench = Bench(
            loaded,
            _name(model, loaded),
            model,
            peer=peer,
            peer_name=against,
            peer_identity=None if against is None else identity_of(against),
            data=recordings,
            path=data if read_as_file else None,
            load=load,
            identity=identity_of(model),
            dtype=dtype,
            folder=None if output is None else output.with_suffix(""),
            workers=workers,
            batch_size=batch_size,
            score_only=score_only,
            marker=next((_judge(j) for j in judge or [] if "@" in j), None),
            judge_paths=[j for j in judge or [] if "@" not in j],
            judges=judges(None if output is None else output.with_suffix("") / "heard"),
            seed=seed,
            limit=limit,
            max_tokens=max_tokens,
            whom={name: True for name, given in (("near", near), ("asked", asked)) if given},
            options=("--device", device, "--dtype", dtype),
            progress=lambda _, done, total: report(done, total),
        )
        result = run(bench, benchmarks or [], out=output, identity=bench.identity, tell=tell)
    if submission is not None and data is not None:
        for path in hand_in(data, result["results"]["pairs"]["items"], submission):
            tell(f"Wrote {path}")
    show(result, table(result), as_json=as_json)


def _check_submission(folder: Path, benchmarks: list[str], data: Path | None, limit: int | None) -> None:
    """Say so before the work, not after it, when there will be nothing to hand in."""
    from lalia.errors import ConfigError
    from lalia.evaluation.folders import make_folder
    from lalia.evaluation.public_pairs import find_golds

    if "pairs" not in benchmarks or data is None or not find_golds(data):
        raise ConfigError("A submission is of sWUGGY or sBLIMP. Ask for pairs, with --data that has a gold.csv.")
    if limit is not None:
        raise ConfigError("A submission has the score of every recording. Leave --limit out.")
    make_folder(folder)


def _judge(given: str) -> Any:
    from lalia.errors import ConfigError
    from lalia.evaluation.judging import ServedJudge

    name, at, address = given.rpartition("@")
    if not at or not name:
        raise ConfigError(f"The judge is {given!r}. Give MODEL@ADDRESS, such as gpt-4o-mini@https://api.openai.com/v1.")
    return ServedJudge(address, name)


def _name(given: str, model: Any) -> str:
    """As the recipe is called, where the model is one that its recipe's name stands for; else as it was given."""
    from lalia.errors import CheckpointError
    from lalia.model import bundled, find
    from lalia.store import read_description

    if given in bundled():
        return given
    recipe = getattr(model, "recipe", None)
    if model is None:  # its answers are there, and it is not loaded
        with contextlib.suppress(CheckpointError):
            recipe = read_description(find(given), "recipe")[0]
    return str(getattr(recipe, "name", given))
