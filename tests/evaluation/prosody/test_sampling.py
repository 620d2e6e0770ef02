"""A tiny pGSLM goes on with one stream, all else as recorded."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lalia.audio import Audio
from lalia.data import Manifest, Utterance
from lalia.errors import ConfigError, DataError
from lalia.evaluation.benchmarks import Bench
from lalia.evaluation.benchmarks.prosody import Prosodies
from lalia.evaluation.prosody import ProsodyStreams, Setting, level_of, prosody_figures, sample_prosody
from lalia.model import Model
from lalia.recipes.gslm import gslm
from lalia.recipes.pgslm import pgslm

EXAMPLE = Path(__file__).parents[3] / "examples" / "question.flac"


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    made = Model(pgslm().tiny())
    clip = Audio.load(EXAMPLE).mono()
    for stream in made.recipe.streams:
        tokenizer = made.tokenizer(stream)
        if not getattr(tokenizer, "fitted", True):
            tokenizer.fit([clip])
    return made


def utterances(speaker: str | None = "s") -> list[Utterance]:
    seconds = Audio.load(EXAMPLE).seconds
    return [
        Utterance("a", EXAMPLE, duration=seconds, speaker=speaker),
        Utterance("b", EXAMPLE, duration=seconds / 2, speaker=speaker),
        Utterance("c", EXAMPLE, duration=0.3, start=0.5, speaker=speaker),
    ]


SHORT = Setting(40, 3, 0)


def run(model: Any, spoken: list[Utterance], setting: Setting = SHORT, **settings: Any) -> Any:
    return Prosodies(setting).run(Bench(model, "m", "m", data=Manifest(spoken), **settings))


def test_pitch_and_durations_in_their_turn(model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lm: Any = model.lms["ulm"]
    asked: list[tuple[set[str], dict[str, int]]] = []
    whole = type(lm).generate

    def generate(self: Any, known: Any, **settings: Any) -> Any:
        (drawn,) = settings["limits"]
        sizes = {name: tokens.num_tokens for name, tokens in known.items()}
        asked.append((set(settings["complete"]), sizes))
        assert sizes.pop(drawn) < settings["limits"][drawn] == max(sizes.values()) == min(sizes.values())
        return whole(self, known, **settings)

    monkeypatch.setattr(type(lm), "generate", generate)
    found = run(model, utterances(), folder=tmp_path)
    assert [forced for forced, _ in asked] == [{"units", "durations"}, {"units", "log_f0"}] * 2
    assert found.counts is not None
    assert [found.counts[k] for k in ("asked", "answered", "failed")] == [3, 2, 1]
    assert "of which the prompt is to have 40" in found.counts["failures"]["c"]
    assert [x["id"] for x in found.items] == ["a", "b"]
    figures = {f.key: f.estimate for f in found.figures}
    for kind in ("pitch", "durations"):
        assert figures[f"{kind}.correctness"].value > 0
        assert figures[f"{kind}.expressiveness"].value > 0
        assert figures[f"{kind}.recorded_expressiveness"].value > 0
        assert figures[f"{kind}.correctness"].n == 2
    # A NaN is not equal to itself.
    assert str(run(model, utterances()[::-1]).figures) == str(found.figures)
    assert str(run(None, utterances(), folder=tmp_path, score_only=True).figures) == str(found.figures)
    more = run(model, utterances(), Setting(40, 6, 10**6))
    assert next(f for f in more.figures if f.key == "pitch.consistency").estimate.n == 0


def test_values_are_kept_as_they_are(model: Model) -> None:
    """The figures of the benchmark are those of the samples themselves."""
    one, two, _ = utterances()
    found = run(model, [one, two])
    level = level_of(model, [u.load().mono() for u in (one, two)])
    seeds = [zlib.crc32(u.id.encode()) % 2**31 for u in (one, two)]
    drawn = [
        sample_prosody(model, u.load().mono(), SHORT, level=level, seed=s)
        for u, s in zip((one, two), seeds, strict=True)
    ]
    for kind, own in prosody_figures(drawn, SHORT).items():
        for key, estimate in own.items():
            told = next(f.estimate for f in found.figures if f.key == f"{kind}.{key}")
            assert told.value == pytest.approx(estimate.value, abs=1e-4, nan_ok=True)
            assert told.n == estimate.n


def test_targets_are_relative_to_the_speaker(model: Model) -> None:
    from lalia.evaluation.prosody.sampling import _recorded

    names = ProsodyStreams.of(model)
    assert names == ProsodyStreams("ulm", "units", "durations", "log_f0")
    one, two, _ = (u.load().mono() for u in utterances())
    level = level_of(model, [one, two])
    assert level == pytest.approx(model.tokenizer("log_f0").level([one, two]))
    known = _recorded(model, names, two, level, 40)
    alone = _recorded(model, names, two, None, 40)
    own = model.tokenizer("log_f0").level([two])
    shift = np.full(len(known.values["log_f0"]), level - own)
    assert alone.values["log_f0"] - known.values["log_f0"] == pytest.approx(shift, abs=1e-5)
    assert known.values["durations"].sum() == alone.frames
    assert known.values["durations"][: alone.prefix].sum() <= 40


def test_what_is_asked_for_wrongly(model: Model) -> None:
    for settings in ({"samples": 0}, {"prefix_frames": 0}, {"shortest": -1}):
        with pytest.raises(ConfigError, match="were asked for"):
            Setting(**settings)
    with pytest.raises(ConfigError, match="is for 'f0'"):
        Setting(temperature={"f0": 1.0})
    with pytest.raises(ConfigError, match="no language model of units with their durations"):
        Prosodies().check(Model(gslm().tiny()))
    cold = Setting(40, 2, temperature={"pitch": 0.0, "durations": 0.0})
    found, _ = sample_prosody(model, utterances()[1].load().mono(), cold)
    for sampled in found.values():
        assert sampled.samples[0].tolist() == sampled.samples[1].tolist()
    with pytest.raises(DataError, match="No recordings were named"):
        Prosodies().run(Bench(model, "m", "m"))
    with pytest.raises(DataError, match="None of 1 recordings is gone on with: It has"):
        run(model, utterances()[2:])


def test_the_command(model: Model, tmp_path: Path, lalia: Any) -> None:
    model.save(tmp_path / "pgslm")
    (tmp_path / "speech").mkdir()
    clip = Audio.load(EXAMPLE).mono()
    Audio(torch.cat([clip.samples] * 2, -1), clip.sample_rate).save(tmp_path / "speech" / "long.wav")
    ran = lalia("eval", tmp_path / "pgslm", "prosody", "--data", tmp_path / "speech")
    assert ran.status == 0, ran.err
    assert "pitch: least mean error of a prompt's samples" in ran.out
    assert "(1 asked, 1 answered, 0 failed)" in ran.out
