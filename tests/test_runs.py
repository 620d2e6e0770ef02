"""The scripts in ``runs/`` are documentation that runs: they parse, and ask lalia only for what it can do."""

import argparse
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import types
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import typer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lalia.checkpoints import KNOWN, cached
from lalia.config import override, to_dict
from lalia.data import Manifest, Utterance
from lalia.errors import CheckpointError, DataError, WeightsError
from lalia.evaluation.benchmarks.bundled import TEXTS
from lalia.model import load_tokenizer, save_tokenizer
from lalia.recipe import count_parameters
from lalia.tokenizers import SoftText
from programs import program_at

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "runs").rglob("*.sh"))
GSLM = ROOT / "runs" / "mini-gslm.sh"
MINI = ROOT / "runs" / "mini.sh"
STAGES = ("setup", "materials", "speak", "units", "tokens", "vocoder", "lm", "export", "evaluate")


def module(name: str, of: str = "mini-gslm") -> types.ModuleType:
    """One of the programs of a run."""
    return program_at(ROOT / "runs" / of / f"{name}.py")


# -- what every script has to be ----------------------------------------------------------------


def command(name: str) -> Any:
    from lalia.cli import app

    group: Any = typer.main.get_command(app)
    assert name in group.commands, f"lalia has no command {name!r}"
    return group.commands[name]


def lalia_lines(text: str) -> list[list[str]]:
    """The words of the commands of lalia in a script, as they stand there."""
    lines = re.sub(r"\\\n", " ", text).splitlines()
    found = (re.match(r"\s*(?:.*(?:\|\||&&|;) )?lalia (?!\()(.*?)(?:[<>|].*)?$", line) for line in lines)
    return [shlex.split(match[1]) for match in found if match and not match[0].lstrip().startswith("#")]


def check_settings(settings: list[str], recipe: str = "mini_gslm") -> None:
    """Each ``--set`` names a field of the recipe and gives it a value that fits."""
    from lalia.recipes import find

    of = find(recipe)
    for setting in settings:
        path, _, value = setting.partition("=")
        for i, stage in enumerate(of.stages):
            path = path.replace(f"stages.{stage.name}.", f"stages.{i}.")
        assert to_dict(override(of, path, value)) != to_dict(of), f"{setting} changes nothing"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_script_parses(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith(("#!/usr/bin/env bash\n", "#!/bin/sh\n"))
    assert re.search(r"^set -eu(o pipefail)?$", script.read_text(), re.MULTILINE)
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_script_names_what_lalia_has(script: Path) -> None:
    for name, *words in lalia_lines(script.read_text()):
        options = {o for p in command(name).params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
        assert {w for w in words if w.startswith("-")} <= options, f"lalia {name} has no such option"


def test_finding_commands() -> None:
    assert len(lalia_lines(GSLM.read_text())) == 9
    text = (
        '# lalia no\nlalia a -o "$x" \\\n    --y >file\nlalia() { :; }\n[ -e z ] ||\n  lalia b\ntrue && lalia c | cat\n'
    )
    assert lalia_lines(text) == [["a", "-o", "$x", "--y"], ["b"], ["c"]]


# -- mini-gslm: the script ----------------------------------------------------------------------


class Bench:
    """The script over programs that only note what they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log.jsonl"
        self.bin = folder / "bin"
        self.bin.mkdir()
        note = f"import json, sys\nopen({str(self.log)!r}, 'a').write(json.dumps(sys.argv) + '\\n')\n"
        (self.bin / "lalia").write_text(
            f"#!{sys.executable}\n{note}"
            "import pathlib\n"
            "out = pathlib.Path(sys.argv[sys.argv.index('-o') + 1]) if '-o' in sys.argv else None\n"
            "if sys.argv[1] == 'fit-units': out.mkdir(); (out / 'recipe.json').write_text('')\n"
        )
        (self.bin / "python").write_text(
            f"#!{sys.executable}\n"
            f"{note}import pathlib\n"
            "if sys.argv[1].endswith('speak.py'):\n"
            "    out = pathlib.Path(sys.argv[sys.argv.index('-o') + 1])\n"
            "    out.mkdir(parents=True, exist_ok=True)\n"
            "    (out / 'manifest.jsonl').open('a').write('{}\\n')\n"
            "if sys.argv[1].endswith('manifests.py'):\n"
            "    out = pathlib.Path(sys.argv[sys.argv.index('-o') + 1])\n"
            "    (out / 'lm.jsonl').write_text('')\n"
            '    (out / \'test.jsonl\').write_text(\'{"path": "/with space/a.flac"}\\n{"path": "/b.flac"}\\n\')\n'
        )
        (self.bin / "flite").write_text("#!/bin/sh\n")
        for program in self.bin.iterdir():
            program.chmod(0o755)

    def run(self, *arguments: str, script: Path = GSLM) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "LALIA_BIN": str(self.bin),
            "LALIA_SPEAKING_PYTHON": str(self.bin / "python"),
            "PATH": os.pathsep.join([str(self.bin), os.environ["PATH"]]),
        }
        # From another folder: paths on the command line are from where the user is.
        return subprocess.run(
            ["bash", str(script), *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def calls(self) -> list[list[str]]:
        """What was asked for since the last time: program or script first."""
        if not self.log.exists():
            return []
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        self.log.unlink()
        return [[Path(c[0]).name, *c[1:]] if c[0].endswith("lalia") else [Path(c[1]).name, *c[2:]] for c in found]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("quick", [False, True])
def test_every_stage_asks_for_what_exists(bench: Bench, quick: bool) -> None:
    limits = ["--speak-minutes", "1", "--vocoder-minutes", "2", "--lm-minutes", "3"]
    places = ["--librispeech", "speech", "--work", "my work", "--output", "model"]
    done = bench.run(*places, *limits, *(["--quick"] if quick else []))
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^== (\w+)$", done.stderr, re.MULTILINE) == list(STAGES)
    calls = bench.calls()
    assert [c[1] if c[0] == "lalia" else c[0] for c in calls] == [
        *("fetch", "materials.py", "speak.py", "speak.py", "manifests.py", "fit-units"),
        *("tokenize", "tokenize", "train", "train", "export.py", "continue", "resynthesize", "eval"),
    ]
    work = str(bench.folder / ("my work-quick" if quick else "my work"))
    for call in calls:
        if call[0] == "lalia":
            # Read as lalia would, values and all.
            context = command(call[1]).make_context(call[1], call[2:])
            check_settings(list(context.params.get("settings") or ()))
    # The evaluation is of the model that was exported.
    assert calls[-1][2] == str(bench.folder / "model")
    assert calls[-1][-4:] == ["--data", f"{work}/test.jsonl", "-o", f"{work}/evaluation.json"]
    manifests = next(c for c in calls if c[0] == "manifests.py")
    assert manifests[1:3] == ["--librispeech", str(bench.folder / "speech")]
    assert all(str(bench.folder) in c[c.index("-o") + 1] for c in calls if "-o" in c)
    trained = [c for c in calls if c[1] == "train"]
    assert [c[c.index("--stage") + 1] for c in trained] == ["vocoder", "pretrain"]
    assert all("--resume" in c and ("--tiny" in c) is quick for c in trained)
    runs = [c[c.index("-o") + 1] for c in trained]
    assert next(c for c in calls if c[0] == "export.py")[1:] == [*runs, str(bench.folder / "model")]


@pytest.mark.parametrize("quick", [False, True])
def test_every_stage_of_mini_asks_for_what_exists(bench: Bench, quick: bool) -> None:
    from lalia.recipes.mini import mini

    places = ["--librispeech", "speech", "--work", "my work", "--output", "model"]
    more = ["--minutes", "3", *(["--quick"] if quick else [])]
    done = bench.run(*places, *more, script=MINI)
    assert done.returncode == 0, done.stderr
    calls = bench.calls()
    assert [c[1] if c[0] == "lalia" else c[0] for c in calls] == [
        *("fetch", "fetch", "fetch", "materials.py", "timed.py", "questions.py", *["speak.py"] * 4),
        *("phonemes.py", *["hearing.py"] * 3, "train", "train", "train", "export.py", "chat", "eval"),
    ]
    work = str(bench.folder / ("my work-quick" if quick else "my work"))
    for call in calls:
        if call[0] == "lalia":
            context = command(call[1]).make_context(call[1], call[2:])
            check_settings(list(context.params.get("settings") or ()), recipe="mini")
        else:
            # What the program itself would say to that.
            folder = "mini-gslm" if call[0] == "materials.py" else "mini"
            assert (ROOT / "runs" / folder / call[0]).is_file()
    trained = [c for c in calls if c[:2] == ["lalia", "train"]]
    # The model that is fitted to another text LM is this one.
    stages = [s.name for s in mini().stages if s.init is None]
    assert [c[c.index("--stage") + 1] for c in trained] == stages
    assert [c[c.index("-o") + 1] for c in trained] == [f"{work}/run-{name}" for name in stages]
    assert next(c for c in calls if c[0] == "export.py")[1:] == [work, str(bench.folder / "model")]
    assert ("--limit" in calls[-1]) is quick


def test_speech_that_comes_later_is_for_a_run_that_begins_anew(bench: Bench) -> None:
    def learned_from() -> dict[str, int]:
        assert bench.run("--work", "w", "speak", "utter", script=MINI).returncode == 0
        *_, call = bench.calls()
        data = [Path(call[i + 1]) for i, word in enumerate(call) if word == "--data"]
        return {path.parent.name: len(path.read_text().splitlines()) for path in data}

    assert learned_from() == {"prose": 1, "replies": 1}
    run = bench.folder / "w" / "run-utter"
    run.mkdir()
    assert learned_from() == {"prose": 1, "replies": 1}
    run.rmdir()
    assert learned_from() == {"prose": 3, "replies": 3}


def test_what_is_asked_is_not_what_is_measured() -> None:
    asking = module("asking", "mini")
    lines = list(asking.requests(2000))
    assert len(set(lines)) == 2000
    assert lines[:50] == list(asking.requests(50))
    assert not any(c in line for line in lines for c in "{}0123456789")
    measured = {asking._plain(question["text"]) for question in TEXTS["questions"]}
    assert not measured & {asking._plain(line) for line in asking.requests(6000, seed=1)}


def test_hearing_is_learned_from_texts_and_from_a_teacher(tmp_path: Path) -> None:
    hearing = module("hearing", "mini")
    torch.manual_seed(0)
    soft = SoftText.Config().tiny().build()
    student = soft.recognizer
    sounds = [0.1 * torch.randn(n) for n in (9000, 12_000, 15_000)]
    taught = hearing.teach(student, sounds)
    told = [hearing.Lesson(x, torch.tensor([*student.rules.prompt, 3, 4, student.rules.end])) for x in sounds]
    kinds = [{x.states is None for x in batch} for batch in islice(hearing.batches([*taught, *told], 2.0, 0), 8)]
    assert {True} in kinds
    assert {False} in kinds
    assert all(len(kind) == 1 for kind in kinds)
    room = hearing.Room(0, torch.device("cpu"))
    parameters = [p.requires_grad_() for _, p in student.learnable()]
    before = hearing.Batch.of(told, torch.device("cpu"))
    heard = room(before.sounds, faster=True)
    assert heard.shape[1] >= 12_000
    assert float(heard.abs().max()) <= 1
    optimizer = torch.optim.Adam(parameters, 3e-3)
    losses = []
    for _ in range(12):
        loss = hearing.loss_of(student, before, before.sounds, 1600)["text"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    # A row of a batch counts as it does alone.
    both = hearing.loss_of(student, hearing.Batch.of(taught[:1], torch.device("cpu")), sounds[0][None], 1600)
    assert both.keys() == {"states", "KL"}
    assert float(both["KL"].detach()) > 0
    hearing.save(dict(student.learnable()), tmp_path / "h.safetensors", 12)
    other = SoftText.Config().tiny().build()
    other.load_weights(load_file(tmp_path / "h.safetensors"))
    assert hearing.load_into(other.recognizer, tmp_path / "h.safetensors") == 12


def test_hearing_keeps_to_its_time_and_learns_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hearing = module("hearing", "mini")

    def tiny(_: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(build=lambda: SoftText.Config().tiny().build().recognizer)

    monkeypatch.setattr(hearing, "Recognizer", types.SimpleNamespace(Config=tiny))
    generator = np.random.default_rng(0)
    for speaker in range(5):
        soundfile.write(tmp_path / f"{speaker}-0-0000.flac", 0.1 * generator.standard_normal(8000), 16_000)
    given = {"librispeech": tmp_path, "spoken": [], "device": "cpu", "recognizer": "", "decoder": False}
    # More than there is time for.
    given |= {"output": tmp_path / "h.safetensors", "pieces": 10, "seconds": 4.0, "minutes": 0.001}
    hearing.train(argparse.Namespace(**given))
    assert re.search(rf"^{hearing.TAUGHT_AT_ONCE} of 4\d pieces taught", capsys.readouterr().err, re.MULTILINE)
    with safe_open(given["output"], framework="pt") as file:
        assert file.metadata() == {"updates": "1", "minutes": "0.00"}
        assert all(name.startswith("encoder.") for name in file.keys())  # noqa: SIM118 (not a mapping)
    # What is done is skipped, unless more time is given.
    monkeypatch.setattr(hearing, "MINUTES", 0.002)
    hearing.save(load_file(given["output"]), given["output"], 7, 0.01)
    hearing.train(argparse.Namespace(**given | {"minutes": None}))
    assert "learned in 0 min" in capsys.readouterr().err
    hearing.train(argparse.Namespace(**given))
    with safe_open(given["output"], framework="pt") as file:
        assert file.metadata() == {"updates": "8", "minutes": "0.01"}


def test_the_stages_train_the_units_that_are_fitted(bench: Bench) -> None:
    """What the script asks of ``fit-units`` is what the recipe says."""
    from lalia.recipes.mini_gslm import mini_gslm

    bench.run("--librispeech", "x", "--work", "w", "units")
    call = next(c for c in bench.calls() if c[1] == "fit-units")
    asked = command("fit-units").make_context("fit-units", call[2:]).params
    tokenizer: Any = mini_gslm().streams["units"].tokenizer
    for name in ("encoder", "layer", "clusters", "pool", "deduplicate", "standardize"):
        assert asked[name] == getattr(tokenizer, name), name


def test_what_is_done_is_skipped(bench: Bench) -> None:
    options = ("--librispeech", "x", "--work", "w", "units")
    bench.run(*options)
    assert [c[0] for c in bench.calls()] == ["manifests.py", "lalia"]
    assert bench.run(*options).returncode == 0
    assert bench.calls() == []


def test_without_flite(bench: Bench) -> None:
    bench.run("--without-flite", "--librispeech", "x", "--work", "w", "speak", "units")
    speak, manifests, _ = bench.calls()
    assert speak[1] == "kokoro"
    assert "--flite" not in manifests


def test_a_stage_that_fails_ends_the_run(bench: Bench) -> None:
    (bench.bin / "lalia").write_text("#!/bin/sh\nexit 2\n")
    done = bench.run("--work", "w", "tokens", "vocoder")
    assert done.returncode == 2
    assert "vocoder" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fast",), "There is no option or stage --fast"),
        (("speek",), "There is no option or stage speek"),
        (("--work",), "--work needs a folder"),
        (("--lm-minutes", "few"), "--lm-minutes needs a whole number"),
        (("--lm-minutes",), "--lm-minutes needs a whole number"),
    ],
)
def test_wrong_options(bench: Bench, arguments: tuple[str, ...], message: str) -> None:
    done = bench.run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert len(done.stderr.splitlines()) == 1
    assert bench.calls() == []


def test_librispeech_must_be_given(bench: Bench) -> None:
    done = bench.run("--work", "w", "units")
    assert done.returncode == 2
    assert "error: LibriSpeech is needed. Give --librispeech DIR." in done.stderr


def test_setup_comes_first(bench: Bench) -> None:
    (bench.bin / "lalia").unlink()
    done = bench.run("--work", "w", "materials")
    assert done.returncode == 2
    assert done.stderr == f"error: There is no {bench.bin}/lalia. Run the stage setup first.\n"


def test_help_names_all(bench: Bench) -> None:
    done = bench.run("--help")
    assert done.returncode == 0
    assert not done.stdout.startswith("#")
    options = set(re.findall(r"--[a-z-]+", re.search(r"case \$option in\n.*?esac", GSLM.read_text(), re.DOTALL)[0]))  # type: ignore[index]
    assert options - {"--help"} <= set(re.findall(r"^  (--[a-z-]+)", done.stdout, re.MULTILINE))
    assert re.findall(r"^  (\w+) {2,}", done.stdout, re.MULTILINE) == list(STAGES)


# -- mini-gslm: materials -----------------------------------------------------------------------


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_prose_is_unpacked(tmp_path: Path) -> None:
    package = archive(
        tmp_path / "a.tgz",
        {
            "package/sotu/data/1790_w.txt": "Fellow citizens — of".encode(),
            "package/moby-dick/data/chapter_2.json": json.dumps({"title": "b", "text": "Two."}).encode(),
            "package/moby-dick/data/chapter_10.json": json.dumps({"title": "c", "text": "Ten."}).encode(),
            "package/moby-dick/data/chapter_2.txt": b"no",
            "package/sotu/data/../../../1790_x.txt": b"no",
        },
    )
    module("materials").write_prose(package, tmp_path / "prose.jsonl")
    documents = [json.loads(line) for line in (tmp_path / "prose.jsonl").read_text("utf-8").splitlines()]
    assert documents == [
        {"id": "moby-dick/chapter_10", "text": "Ten."},
        {"id": "moby-dick/chapter_2", "text": "Two."},
        {"id": "sotu/1790_w", "text": "Fellow citizens — of"},
    ]


def test_voices_are_unpacked(tmp_path: Path) -> None:
    style = np.random.default_rng(0).standard_normal((510, 1, 256)).astype("<f4")
    names = ("af_heart", "bm_george", "jf_alpha")
    package = archive(tmp_path / "a.tgz", {f"package/voices/{n}.bin": style.tobytes() for n in names})
    module("materials").write_voices(package, tmp_path / "voices.npz")
    with np.load(tmp_path / "voices.npz", allow_pickle=False) as voices:
        assert sorted(voices.files) == ["af_heart", "bm_george"]
        assert np.array_equal(voices["af_heart"], style)


@pytest.mark.parametrize(
    ("npm", "match"),
    [
        ('printf x >"$4/kokoro-js-1.2.1.tgz"', "has SHA-256 .*, not 1f0d0383.* Do not use it"),
        ("echo 'npm error code E404' >&2; exit 1", r"could not bring kokoro-js@1\.2\.1 \(npm error code E404\)"),
        (None, "There is no npm"),
    ],
)
def test_a_package_that_is_not_the_one_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npm: str | None, match: str
) -> None:
    materials = module("materials")
    if npm is not None:
        (tmp_path / "npm").write_text(f"#!/bin/sh\n{npm}\n")
        (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WeightsError, match=match):
        materials.npm_pack(materials.VOICES, tmp_path)


# -- mini-gslm: speech and manifests ------------------------------------------------------------


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Materials of a few sentences."""
    folder = tmp_path / "materials"
    folder.mkdir()
    page = " ".join(f"The {w} sailor saw the {w} sea and said little." for w in ("old", "tall", "quiet", "last"))
    rows = ({"id": "moby-dick/chapter_1", "text": page}, {"id": "sotu/1790", "text": page.replace("sailor", "senator")})
    (folder / "prose.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "facts.txt").write_text(
        'A "group" of larks is an exaltation. Is it so?\nIn 1851, nobody knew it.\nToo short.\n'
    )
    return folder


def test_what_is_read_out(text: Path) -> None:
    speak = module("speak")
    sentences = speak.sentences(text)
    assert len(sentences) == 5
    assert "A group of larks is an exaltation. Is it so?" in sentences
    assert not any("senator" in s for s in sentences)
    long = speak.long_passages(text)
    assert len(long) == 2  # of four sentences each, the last of which is too short for one more
    assert all(len(p.split()) == 30 for p in long)
    assert sum("senator" in p for p in long) == 1


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_flite_reads_the_materials(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speak = module("speak")
    arguments = ["speak.py", "flite", "--materials", str(text), "-o", str(tmp_path / "flite"), "--hours", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    speak.main()
    manifest = Manifest.load(tmp_path / "flite" / "manifest.jsonl")
    assert [u.text for u in manifest] == speak.long_passages(text)
    assert all(str(u.speaker).startswith("flite-") for u in manifest)


def corpus(folder: Path, names: list[str]) -> Path:
    """Recordings of a second of noise."""
    folder.mkdir()
    for name in names:
        noise = np.random.default_rng(len(name)).uniform(-0.1, 0.1, 16_000)
        soundfile.write(folder / f"{name}.flac", noise, 16_000)
    return folder


def test_held_out_speakers_are_in_no_training_data(tmp_path: Path) -> None:
    manifests = module("manifests")
    listed = manifests.LIST.read_text().split()
    assert len(listed) == len({name.split("-")[0] for name in listed}) == 251
    real = manifests.librispeech(corpus(tmp_path / "speech", [*listed[:60], "1-1-0001"]), None)
    kokoro = Manifest(
        Utterance(f"{i:05d}-af_heart", tmp_path / f"{i}.flac", duration=1.0, speaker="af_heart") for i in range(300)
    )
    flite = Manifest([Utterance("00000-flite-slt", tmp_path / "f.flac", duration=1.0, speaker="flite-slt")])
    manifests.write_manifests(real, kokoro, flite, tmp_path)
    parts = {n: Manifest.load(tmp_path / f"{n}.jsonl") for n in ("test", "fit", "vocoder", "lm")}
    ids = {name: {u.id for u in part} for name, part in parts.items()}
    assert ids["test"]
    held = {u.speaker for u in parts["test"]}
    for name in ("fit", "vocoder", "lm"):
        assert not held & {u.speaker for u in parts[name]}
    assert len(ids["fit"]) == len(real["train"]) + 260
    assert "00299-af_heart" not in ids["fit"]
    assert ids["lm"] - ids["vocoder"] == {"00000-flite-slt"}
    assert ids["fit"] < ids["vocoder"]
    assert ids["vocoder"] | ids["test"] == {*listed[:60], *(u.id for u in kokoro)}
    assert "1-1-0001" not in ids["lm"]
    few = manifests.librispeech(tmp_path / "speech", 2)
    assert all(len(part) <= 2 for part in few.values())


def test_a_folder_of_other_speech(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has none of the utterances"):
        module("manifests").librispeech(corpus(tmp_path / "speech", ["1-1-0001"]), None)


# -- mini-gslm: the model -----------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Any]:
    """Two runs of the tiny recipe that ended with other weights; that of the language model has another vocoder."""
    from lalia.model import Model
    from lalia.recipes.mini_gslm import mini_gslm
    from lalia.vocoders import GriffinLim

    recipe = mini_gslm().tiny()
    lm_only = replace(recipe, vocoder=GriffinLim.Config("units", upsample=2), stages=recipe.stages[:1], voices=())
    quantiser = {"units": recipe.streams["units"].tokenizer.build().weights()}  # type: ignore[attr-defined]
    models = {}
    for seed, (name, part) in enumerate({"vocoder": recipe, "lm": lm_only}.items()):
        torch.manual_seed(seed)
        models[name] = Model(part, learned=quantiser, identities={"units": "of units"})
        models[name].save(tmp_path / name)
    return models


def test_export_joins_two_runs(runs: dict[str, Any], tmp_path: Path) -> None:
    from lalia.model import Model

    loaded = Model.load(module("export").export(tmp_path / "vocoder", tmp_path / "lm", tmp_path / "model"))
    assert loaded.recipe == runs["vocoder"].recipe
    assert loaded.identities == {"units": "of units"}
    for name, t in loaded.module.named_parameters():
        source = runs["vocoder" if name.startswith("vocoder.") else "lm"].module
        assert torch.equal(t, source.get_parameter(name).half().float()), name
    # Units that were rounded would be other units.
    for name, t in runs["lm"].learned["units"].items():
        assert torch.equal(loaded.learned["units"][name], t), name


def test_export_refuses_what_does_not_fit(runs: dict[str, Any], tmp_path: Path) -> None:
    export = module("export").export
    lm = runs["lm"]
    lm.identities["units"] = "of other units"
    lm.save(tmp_path / "other units")
    with pytest.raises(CheckpointError, match="different units"):
        export(tmp_path / "vocoder", tmp_path / "other units", tmp_path / "model")
    larger = override(lm.recipe, "lms.ulm.backbone.num_layers", "7")
    type(lm)(larger, learned=lm.learned, identities={"units": "of units"}).save(tmp_path / "larger")
    with pytest.raises(CheckpointError, match="different language models"):
        export(tmp_path / "vocoder", tmp_path / "larger", tmp_path / "model")
    with pytest.raises(CheckpointError):
        export(tmp_path / "vocoder", tmp_path / "nothing", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_several_trainings_learned_is_averaged(tmp_path: Path) -> None:
    hearing = module("hearing", "mini")
    one, other = {"encoder.w": torch.tensor([1.0, 3.0])}, {"encoder.w": torch.tensor([2.0, 5.0])}
    other["decoder.w"] = torch.tensor([7.0])
    for name, tensors in (("one", one), ("other", other)):
        save_file(tensors, tmp_path / name)
    hearing.average(argparse.Namespace(of=[tmp_path / "one", tmp_path / "other"], output=tmp_path / "mean"))
    mean = load_file(tmp_path / "mean")
    assert mean["encoder.w"].tolist() == [1.5, 4.0]
    assert mean["decoder.w"].tolist() == [7.0]


# -- the grid that is compared -------------------------------------------------------------------


@pytest.mark.skipif(cached(KNOWN["whisper-tiny.en"]) is None, reason="needs the weights of whisper-tiny.en")
def test_models_of_the_grid_differ_in_what_is_compared(tmp_path: Path) -> None:
    grid = module("grid", of="compare")
    save_tokenizer(load_tokenizer("mini-gslm"), tmp_path / "units-4")
    for tokenizer in grid.TOKENIZERS:
        made = {
            (start, vocoder): grid.grid_recipe(tmp_path, tokenizer, start, vocoder)[0]
            for start in grid.STARTS
            for vocoder in grid.VOCODERS
        }
        assert all(count_parameters(recipe)["ulm"] > 1e7 for recipe in made.values())
        for vocoder in grid.VOCODERS:
            cold, text = (made[start, vocoder] for start in ("cold", "text"))
            begun = replace(cold.lms["ulm"].backbone, pretrained=True)
            assert replace(cold, lms={"ulm": replace(cold.lms["ulm"], backbone=begun)}) == text
        for start in grid.STARTS:
            vocos, plain = (made[start, vocoder] for vocoder in ("vocos", "plain"))
            assert replace(vocos, vocoder=plain.vocoder, stages=plain.stages) == plain
        assert (
            made["cold", "vocos"].streams["speech"].tokenizer
            == load_tokenizer({"codec": "mini-codec"}.get(tokenizer, "mini-gslm")).config
        )
