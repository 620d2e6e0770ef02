import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lalia.data import Manifest, Skipped, TokenDataset, Utterance, discover, from_folder, tokenize_corpus
from lalia.data.shards import shard_name
from lalia.errors import ConfigError, DataError, OutputError
from lalia.streams import Discrete


@pytest.fixture
def corpus(tmp_path: Path, sound) -> Manifest:
    for i in range(23):
        sound(f"in/{i:02d}.wav", 0.2 + 0.07 * (i * 7 % 11), seed=i, rate=16_000 if i % 3 else 22_050)
    return from_folder(tmp_path / "in")


def _shards(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("tokens-*.parquet"))}


def test_a_corpus_becomes_tokens(tmp_path: Path, corpus: Manifest, energy) -> None:
    calls: list[tuple[float, float]] = []
    tokenizer = energy(energy.Config())
    report = tokenize_corpus(
        corpus,
        tokenizer,
        tmp_path / "out",
        batch_seconds=2.0,
        shard_rows=10,
        progress=lambda a, b: calls.append((a, b)),
    )
    assert (report.total, report.done, report.skipped, report.complete) == (23, 23, (), True)
    assert report.hours == pytest.approx(corpus.seconds / 3600, rel=1e-3)
    assert report.real_time_factor == pytest.approx(report.seconds / corpus.seconds)
    assert calls[0] == (0.0, pytest.approx(corpus.seconds))
    assert calls[-1] == (pytest.approx(corpus.seconds), pytest.approx(corpus.seconds))
    assert sorted(calls) == calls

    dataset = TokenDataset(tmp_path / "out")
    assert dataset.ids == [u.id for u in corpus]
    assert dataset.identity == {"units": tokenizer.identity}
    info = dataset.info["units"]
    assert info.name == "Energy"
    assert info.tokenizer["num_levels"] == 16
    for i, u in enumerate(corpus):
        alone = tokenizer.encode(u.load(sample_rate=16_000))
        assert dataset[i].streams["units"].values.equal(alone.values)
        assert dataset[i].seconds == pytest.approx(u.duration, abs=1e-3)

    assert discover(tmp_path / "out").utterances == corpus.utterances
    saved = json.loads((tmp_path / "out/report.json").read_text())
    assert (saved["done"], saved["skipped"], saved["complete"]) == (23, 0, True)
    assert saved["real_time_factor"] == report.real_time_factor


def test_batches_are_of_bounded_length(tmp_path: Path, corpus: Manifest, energy, sound) -> None:
    long = Utterance("long", sound("long.wav", 5.0), duration=5.0)
    tokenizer = energy(energy.Config())
    tokenize_corpus([*corpus, long], tokenizer, tmp_path / "out", batch_seconds=2.0)
    assert max(n for batch in tokenizer.batches for n in batch) == 80_000
    for batch in tokenizer.batches:
        assert len(batch) == 1 or len(batch) * max(batch) <= 2.0 * 16_000 + len(batch)
    assert max(map(len, tokenizer.batches)) > 2
    assert len(TokenDataset(tmp_path / "out")) == 24


@pytest.mark.parametrize("options", [{"num_codebooks": 3}, {"deduplicate": True}, {"continuous": True}])
def test_every_kind_of_stream(tmp_path: Path, corpus: Manifest, energy, options: dict[str, object]) -> None:
    tokenizer = energy(energy.Config(**options))
    tokenize_corpus(corpus, tokenizer, tmp_path / "out", stream="x", batch_seconds=3.0)
    dataset = TokenDataset(tmp_path / "out")
    assert dataset.specs == {"x": tokenizer.spec}
    for i in (0, 11, 22):
        alone, stored = tokenizer.encode(corpus[i].load(sample_rate=16_000)), dataset[i].streams["x"]
        assert stored.values.allclose(alone.values, rtol=1e-3)
        assert stored.discrete == alone.discrete == isinstance(tokenizer.spec.kind, Discrete)
        assert (stored.durations is None) == (alone.durations is None)
        if alone.durations is not None:
            assert stored.durations.equal(alone.durations)


@pytest.fixture
def bad(tmp_path: Path, sound) -> list[Utterance]:
    """Recordings of which each is unusable in its own way; headers do not tell."""
    folder = tmp_path / "bad"
    folder.mkdir()
    n = 8000
    arrays = {"silent": np.zeros(n), "one": np.ones(1) / 2, "none": np.zeros(0)}
    arrays["nan"] = np.where(np.arange(n) == 4000, np.nan, 0.1)
    arrays["inf"] = np.where(np.arange(n) == 4000, np.inf, 0.1)
    for name, x in arrays.items():
        soundfile.write(folder / f"{name}.wav", x.astype(np.float32), 16_000, subtype="FLOAT")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("no sound")
    (folder / "dir.wav").mkdir()
    cut = sound("bad/cut.flac", 3.0)
    cut.write_bytes(cut.read_bytes()[:30_000])
    names = [*arrays, "empty", "text", "dir", "gone"]
    items = [Utterance(name, folder / f"{name}.wav", duration=0.5) for name in names]
    return [*items, Utterance("cut", cut, duration=3.0), Utterance("channel", sound("ok.wav"), duration=0.5, channel=4)]


REASONS = {
    "silent": "is silent (its peak is under -60 dBFS)",
    "one": "has only 1 sample (0.1 ms)",
    "none": "is empty",
    "nan": "contains NaN or infinite samples",
    "inf": "contains NaN or infinite samples",
    "empty": "is empty",
    "dir": "is a directory",
    "gone": "does not exist",
    "channel": "has 1 channels, not channel 4",
}


def test_bad_recordings_are_reported_counted_and_skipped(
    tmp_path: Path, corpus: Manifest, bad: list[Utterance], energy
) -> None:
    mixed = [u for pair in zip(corpus, bad, strict=False) for u in pair]
    given = Manifest(mixed, [Skipped("early", "x/early.wav", "is empty")])
    report = tokenize_corpus(given, energy(energy.Config()), tmp_path / "out", batch_seconds=3.0, shard_rows=6)
    assert (report.total, report.done) == (2 * len(bad) + 1, len(bad))
    reasons = {s.id: s.reason for s in report.skipped}
    assert reasons.pop("early") == "is empty"
    assert reasons.pop("text").startswith("is not a sound file (")
    assert reasons.pop("cut").startswith(("cannot be decoded (", "breaks off"))
    assert reasons == REASONS
    assert report.reasons["is empty"] == 3
    assert report.reasons["contains NaN or infinite samples"] == 2
    assert report.reasons["has only N sample"] == 1
    assert sum(report.reasons.values()) == len(report.skipped)
    assert TokenDataset(tmp_path / "out").ids == [u.id for u in corpus][: len(bad)]
    # A second run knows what the first one found, and reads nothing again.
    again = energy(energy.Config())
    second = tokenize_corpus(given, again, tmp_path / "out", batch_seconds=3.0, shard_rows=6)
    assert (second.done, second.skipped, again.batches) == (report.done, report.skipped, [])
    assert second.real_time_factor is None
    assert json.loads((tmp_path / "out/report.json").read_text())["reasons"] == report.reasons


def test_only_bad_recordings(tmp_path: Path, bad: list[Utterance], energy) -> None:
    report = tokenize_corpus(bad, energy(energy.Config()), tmp_path / "out")
    assert (report.done, len(report.skipped), report.complete) == (0, len(bad), True)
    assert len(TokenDataset(tmp_path / "out")) == 0


def test_what_the_tokenizer_refuses_costs_nobody_else(tmp_path: Path, corpus: Manifest, energy) -> None:
    loud = sorted(corpus, key=lambda u: float(u.load().samples.abs().max()))
    limit = float(loud[-4].load(sample_rate=16_000).samples.abs().max()) + 1e-4
    report = tokenize_corpus(corpus, energy(energy.Config(), refuse=limit), tmp_path / "out", batch_seconds=5.0)
    assert 0 < len(report.skipped) < 8
    assert report.reasons == {"the recording is too loud for this tokenizer": len(report.skipped)}
    assert report.done == 23 - len(report.skipped)


def test_a_recording_too_short_for_a_token(tmp_path: Path, sound, energy) -> None:
    class Slow(energy):
        def encode(self, audio):  # type: ignore[no-untyped-def]
            tokens = super().encode(audio)
            return tokens.cut(10)

    items = [Utterance(n, sound(f"{n}.wav", s), duration=s) for n, s in (("a", 0.1), ("b", 0.5))]
    report = tokenize_corpus(items, Slow(energy.Config()), tmp_path / "out")
    assert [(s.id, s.reason) for s in report.skipped] == [("a", "gives no tokens")]


@pytest.mark.parametrize("fail_after", [0, 1, 3, 5])
def test_resumed_after_a_crash_the_shards_are_the_same(
    tmp_path: Path, corpus: Manifest, energy, fail_after: int
) -> None:
    options = {"batch_seconds": 1.5, "shard_rows": 5}
    tokenize_corpus(corpus, energy(energy.Config()), tmp_path / "whole", **options)
    with pytest.raises(RuntimeError, match="killed"):
        tokenize_corpus(corpus, energy(energy.Config(), fail_after=fail_after), tmp_path / "out", **options)
    before = _shards(tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*.part"))
    tokenizer = energy(energy.Config())
    report = tokenize_corpus(corpus, tokenizer, tmp_path / "out", **options)
    assert report.complete
    after = _shards(tmp_path / "out")
    assert after == _shards(tmp_path / "whole")
    assert len(after) == 5
    assert before.items() <= after.items()
    # What was finished was not done again.
    assert sum(map(len, tokenizer.batches)) == 23 - 5 * len(before)


KILLED = """
import importlib.util, os, signal, sys
from pathlib import Path
import lalia.data.corpus as corpus
from lalia.files import atomic_write
spec = importlib.util.spec_from_file_location("helpers", sys.argv[1])
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)
from lalia.data import from_folder
real, calls = corpus.write_shard, []
def write(path, rows, *args, **kwargs):
    calls.append(path)
    if len(calls) < 3:
        return real(path, rows, *args, **kwargs)
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"PAR1 half a shard")
        os.kill(os.getpid(), signal.SIGKILL)
corpus.write_shard = write
corpus.tokenize_corpus(
    from_folder(sys.argv[2]), helpers.Energy(helpers.Energy.Config()), sys.argv[3], batch_seconds=1.5, shard_rows=5
)
"""


def test_resumed_after_a_kill_in_the_middle_of_writing(tmp_path: Path, corpus: Manifest, energy) -> None:
    helpers = str(Path(__file__).with_name("conftest.py"))
    arguments = [helpers, str(tmp_path / "in"), str(tmp_path / "out")]
    src = str(Path(__file__).parents[2] / "src")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], env={**os.environ, "PYTHONPATH": src}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    before = _shards(tmp_path / "out")
    assert len(before) == 2
    assert len(list((tmp_path / "out").glob(".*.part"))) == 1
    tokenize_corpus(corpus, energy(energy.Config()), tmp_path / "out", batch_seconds=1.5, shard_rows=5)
    tokenize_corpus(corpus, energy(energy.Config()), tmp_path / "whole", batch_seconds=1.5, shard_rows=5)
    assert before.items() <= _shards(tmp_path / "out").items()
    resumed, whole = TokenDataset(tmp_path / "out"), TokenDataset(tmp_path / "whole")
    assert resumed.ids == whole.ids == [u.id for u in corpus]
    for i in range(len(whole)):
        assert resumed[i].streams["units"].values.equal(whole[i].streams["units"].values)
    assert not list((tmp_path / "out").glob(".*.part"))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_several_processes_make_what_one_makes(
    tmp_path: Path, corpus: Manifest, energy, order: tuple[int, ...]
) -> None:
    options = {"batch_seconds": 1.5, "shard_rows": 3}
    tokenize_corpus(corpus, energy(energy.Config()), tmp_path / "one", **options)
    complete = []
    for rank in order:
        tokenizer = energy(energy.Config())
        complete.append(tokenize_corpus(corpus, tokenizer, tmp_path / "n", rank=rank, world=3, **options).complete)
        if len(complete) < 3:
            with pytest.raises(DataError, match=r"of its 8 shards .* is missing"):
                TokenDataset(tmp_path / "n")
    assert complete == [False, False, True]
    assert _shards(tmp_path / "one") == _shards(tmp_path / "n")
    reports = [json.loads((tmp_path / d / "report.json").read_text()) for d in ("one", "n")]
    assert reports[0]["hours"] == reports[1]["hours"]
    assert reports[1]["complete"] is True


def test_a_damaged_shard_is_made_again(tmp_path: Path, corpus: Manifest, energy) -> None:
    options = {"batch_seconds": 1.5, "shard_rows": 5}
    tokenize_corpus(corpus, energy(energy.Config()), tmp_path / "out", **options)
    good = _shards(tmp_path / "out")
    (tmp_path / "out" / shard_name(1)).write_bytes(good[shard_name(1)][:100])
    (tmp_path / "out" / shard_name(3)).unlink()
    tokenizer = energy(energy.Config())
    assert tokenize_corpus(corpus, tokenizer, tmp_path / "out", **options).done == 23
    assert _shards(tmp_path / "out") == good
    assert sum(map(len, tokenizer.batches)) == 10


def test_another_tokenizer_or_manifest_is_refused(tmp_path: Path, corpus: Manifest, energy) -> None:
    out = tmp_path / "out"
    tokenize_corpus(corpus, energy(energy.Config()), out)
    before = {p: p.read_bytes() for p in out.iterdir()}

    def refused(message: str, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(DataError, match=message):
            tokenize_corpus(*args, **kwargs)

    refused(r"was made by Energy \(\w{12}\), not by Energy", corpus, energy(energy.Config(num_levels=8)), out)
    refused("holds the streams units", corpus, energy(energy.Config()), out, stream="codes")
    refused("another manifest or with other shard sizes", corpus[:20], energy(energy.Config()), out)
    refused("another manifest or with other shard sizes", corpus, energy(energy.Config()), out, shard_rows=4)
    assert {p: p.read_bytes() for p in out.iterdir()} == before


def test_wrong_arguments(tmp_path: Path, corpus: Manifest, energy) -> None:
    tokenizer = energy(energy.Config())
    with pytest.raises(DataError, match="no utterances"):
        tokenize_corpus([], tokenizer, tmp_path / "out")
    with pytest.raises((ConfigError, DataError), match="rank 2 of 2"):
        tokenize_corpus(corpus, tokenizer, tmp_path / "out", rank=2, world=2)
    with pytest.raises(OutputError, match="cannot be made a folder"):
        tokenize_corpus(corpus, tokenizer, corpus[0].path)
    assert not (tmp_path / "out").exists()


def test_real_speech(tmp_path: Path, speech: Path, energy) -> None:
    manifest = discover(speech)[:40]
    report = tokenize_corpus(manifest, energy(energy.Config(num_levels=8, deduplicate=True)), tmp_path / "out")
    assert (report.done, report.skipped) == (40, ())
    dataset = TokenDataset(tmp_path / "out")
    assert dataset.speakers == [u.speaker for u in manifest]
    for i, u in enumerate(manifest):
        stream = dataset[i].streams["units"]
        assert stream.durations is not None
        assert int(stream.durations.sum()) == int(u.duration * 50)
        assert bool((stream.values[0, 0, 1:] != stream.values[0, 0, :-1]).all())


def test_a_long_recording_is_alone_in_its_batch(tmp_path: Path, energy, sound: Callable[..., Path]) -> None:
    path = tmp_path / "long.wav"
    block = np.random.default_rng(0).uniform(-0.1, 0.1, 8000 * 60).astype(np.float32)
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for _ in range(10):
            file.write(block)
    sound("in/a.wav")
    items = [Utterance("long", path, duration=600.0), Utterance("a", tmp_path / "in/a.wav", duration=0.5)]
    tokenizer = energy(energy.Config())
    report = tokenize_corpus(items, tokenizer, tmp_path / "out")
    assert report.done == 2
    assert [len(b) for b in tokenizer.batches] == [1, 1]
    assert TokenDataset(tmp_path / "out").lengths("units").tolist() == [30_000, 25]
