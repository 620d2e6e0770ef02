"""Turns in real time: scenes with a model that is told what to say, and one with a model of its own."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lalia.audio import Audio
from lalia.errors import AudioError, ConfigError
from lalia.realtime import (
    Activity,
    Draft,
    Finished,
    Heard,
    Ignored,
    Interrupted,
    Resumed,
    Said,
    SessionEvent,
    Sound,
    Started,
    Stopped,
    Truncated,
    TurnSession,
    Written,
)
from lalia.realtime.addressee import Utterance, Verdict
from loud import Loud
from parrot import Parrot
from tiny_mini import tiny_mini

RATE, PIECE = 16_000, 320


def scene(*parts: float) -> Tensor:
    """Silence and voice in turns, seconds of each, beginning with silence."""
    return torch.cat([torch.full((round(RATE * t),), 0.9 * (i % 2)) for i, t in enumerate(parts)])


def play(sound: Tensor, talk: Parrot, size: int = PIECE, **config: Any) -> list[tuple[float, SessionEvent]]:
    session = TurnSession(talk, TurnSession.Config(**config), activity=Activity(detector=Loud()))
    return [(session.time, e) for x in sound.split(size) for e in session.push(Audio(x, RATE))]


def kinds(events: list[tuple[float, SessionEvent]]) -> list[type]:
    return [type(e) for _, e in events if not isinstance(e, Draft | Written | Sound | Heard)]


def at(events: list[tuple[float, SessionEvent]], kind: type) -> float:
    return next(t for t, e in events if isinstance(e, kind))


def test_a_turn_is_answered_and_played_to_its_end() -> None:
    talk = Parrot()
    events = play(scene(1.0, 1.0, 4.0), talk)
    assert kinds(events) == [Started, Stopped, Said, Finished]
    started, stopped = (next(e for _, e in events if isinstance(e, k)) for k in (Started, Stopped))
    assert started == Started(pytest.approx(1.0, abs=0.03))
    assert stopped == Stopped(pytest.approx(2.0, abs=0.03))
    assert at(events, Stopped) == pytest.approx(2.5, abs=0.03)
    # What is heard begins with what was before the voice, and ends with the silence.
    assert talk.happened == [("turn", pytest.approx(1.8, abs=0.05))]
    assert at(events, Sound) == pytest.approx(2.5, abs=0.03)
    assert at(events, Finished) == pytest.approx(4.5, abs=0.05)


def test_no_more_is_made_than_is_wanted_by_now() -> None:
    talk = Parrot(40)
    events = play(scene(0.2, 0.5, 2.5), talk, lead=0.5)
    played = 3.2 - at(events, Sound)
    assert talk.made * 0.25 == pytest.approx(played + 0.5, abs=0.26)


def test_who_speaks_while_a_reply_is_heard_stops_it_at_once() -> None:
    talk = Parrot(40)
    events = play(scene(0.2, 1.0, 2.0, 1.0, 1.0), talk)
    stop = at(events, Interrupted)
    # A tenth of a second until it counts as a voice, and then within the piece.
    assert stop == pytest.approx(3.2 + 0.1, abs=0.03)
    assert not [e for t, e in events if isinstance(e, Sound) and 3.3 < t < 4.6]
    (event,) = [e for _, e in events if isinstance(e, Interrupted)]
    assert event == Interrupted(pytest.approx(stop - at(events, Sound), abs=0.01))
    assert next(e for _, e in events if isinstance(e, Truncated)) == Truncated(event.heard, "so far")
    # The second turn is what was said in it.
    assert talk.happened[1] == ("turn", pytest.approx(1.8, abs=0.05))
    assert talk.happened[2] == ("truncate", pytest.approx(event.heard, abs=0.01))


@pytest.mark.parametrize("how", ["understood", "backchannel", "addressed"])
def test_a_reply_goes_on_after_what_was_no_interruption(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cough, an "mm-hm", a word to somebody else: it stops at once, and what was not heard comes after."""
    talk, said = Parrot(16), []
    right = talk.turn

    def turn() -> Iterator[Any]:
        events = right()
        heard = next(events)
        said.append(heard)
        again = len(said) > 1
        text = "Mm-hmm, I see." if again and how == "backchannel" else "words"
        yield Heard(text, heard.understood and not (again and how == "understood"))
        yield from events

    monkeypatch.setattr(talk, "turn", turn)
    session = TurnSession(
        talk,
        activity=Activity(detector=Loud()),
        addressee=(lambda u: Verdict(len(said) < 2, 1.0, u.text)) if how == "addressed" else None,
    )
    sound = scene(0.2, 1.0, 2.0, 0.4, 6.0)
    events = [(session.time, e) for x in sound.split(PIECE) for e in session.push(Audio(x, RATE))]
    assert [k for k in kinds(events) if k is not Said] == [
        *(Started, Stopped, Started, Interrupted, Stopped, Ignored, Resumed, Finished)
    ]
    (interrupted,) = [e for _, e in events if isinstance(e, Interrupted)]
    # All of it was played: up to the interruption, and from there on.
    before = [e.audio.seconds for t, e in events if isinstance(e, Sound) and t <= at(events, Interrupted)]
    after = [e.audio.seconds for t, e in events if isinstance(e, Sound) and t >= at(events, Resumed)]
    assert sum(before) > interrupted.heard
    assert interrupted.heard + sum(after) == pytest.approx(4.0, abs=0.01)
    assert at(events, Finished) - at(events, Resumed) == pytest.approx(4.0 - interrupted.heard, abs=0.05)
    assert not [x for x in talk.happened if x[0] == "truncate"]
    # Unless that is not wanted.
    talk, said[:] = Parrot(16), []
    right = talk.turn
    monkeypatch.setattr(talk, "turn", turn)
    session = TurnSession(
        talk, TurnSession.Config(resume=False), activity=Activity(detector=Loud()), addressee=session.addressee
    )
    events = [(session.time, e) for x in sound.split(PIECE) for e in session.push(Audio(x, RATE))]
    assert kinds(events)[-2:] == [Ignored, Truncated]


def test_who_goes_on_as_the_reply_begins_was_not_done() -> None:
    talk = Parrot(40)
    events = play(scene(0.5, 1.0, 0.7, 1.0, 1.0), talk)
    assert [type(e) for _, e in events if isinstance(e, Started | Stopped | Interrupted)] == [
        *(Started, Stopped, Started, Interrupted, Stopped)
    ]
    assert talk.happened[1] == "retract"
    # Both parts and the pause are one.
    assert talk.happened[2] == ("turn", pytest.approx(3.5, abs=0.1))


def test_a_reply_that_may_not_be_interrupted_is_not() -> None:
    talk = Parrot(8)
    events = play(scene(0.2, 1.0, 1.0, 0.5, 4.0), talk, interruptible=False)
    assert kinds(events) == [Started, Stopped, Said, Finished]
    assert len(talk.happened) == 1


def test_what_is_not_understood_is_not_answered_unless_it_is_to_ask() -> None:
    talk = Parrot(understood=False)
    events = play(scene(0.2, 1.0, 2.0), talk)
    assert kinds(events) == [Started, Stopped, Ignored]
    assert talk.made == 0
    assert Said in kinds(play(scene(0.2, 1.0, 4.0), Parrot(understood=False), ask=True))


def test_what_is_said_to_others_is_not_answered() -> None:
    asked: list[Any] = []

    def addressee(utterance: Utterance) -> Verdict:
        asked.append((utterance.text, utterance.seconds, utterance.since))
        return Verdict(len(asked) != 2, 1.0, utterance.text)

    talk = Parrot(2)
    session = TurnSession(talk, activity=Activity(detector=Loud()), addressee=addressee)
    sound = scene(0.2, 1.0, 1.5, 1.0, 1.5)
    events = [(session.time, e) for x in sound.split(PIECE) for e in session.push(Audio(x, RATE))]
    assert kinds(events) == [Started, Stopped, Said, Finished, Started, Stopped, Ignored]
    assert asked[0] == ("words", pytest.approx(1.7, abs=0.1), math.inf)
    # From the end of the reply, 0.5 s after silence began and as long as it is, to the padding before the voice.
    assert asked[1] == ("words", pytest.approx(1.8, abs=0.1), pytest.approx(0.2, abs=0.1))


def test_silence_and_clicks_are_nothing() -> None:
    talk = Parrot()
    assert play(scene(1.0, 0.05, 1.0, 0.05, 2.0), talk) == []
    assert talk.happened == []


def test_how_long_it_waits_may_depend_on_what_was_said() -> None:
    class Patience:
        after = 0.1

        def __call__(self, samples: Tensor, draft: str) -> float:
            assert samples[-RATE // 10 :].abs().max() == 0
            asked.append((len(samples) / RATE, draft))
            return 1.0 if draft >= "2" else 0.2

    asked: list[Any] = []
    session = TurnSession(Parrot(), activity=Activity(detector=Loud()), patience=Patience())
    sound = scene(0.2, 1.0, 3.0)
    stopped = [session.time for x in sound.split(PIECE) for e in session.push(Audio(x, RATE)) if isinstance(e, Stopped)]
    assert stopped == [pytest.approx(2.2, abs=0.03)]
    # Once in the silence, with a tenth of a second of it.
    assert asked == [(pytest.approx(1.4, abs=0.1), "2 words")]


@settings(max_examples=20)
@given(st.integers(300, 4000), st.lists(st.floats(0.05, 1.0), min_size=2, max_size=5))
def test_turns_do_not_depend_on_how_the_sound_comes(size: int, parts: list[float]) -> None:
    sound, talks = scene(*parts, 2.0), [Parrot(3), Parrot(3)]
    for talk, n in zip(talks, (160, size), strict=True):
        play(sound, talk, n, interruptible=False)
    heard, other = ([x[1] for x in talk.happened if x[0] == "turn"] for talk in talks)
    if len(heard) == len(other):
        assert other == [pytest.approx(x, abs=2 * size / RATE + 0.05) for x in heard]
    else:
        # A piece of sound may end in the silence behind it.
        assert size > 160


def test_bad_sound_is_named_and_nothing_is_lost() -> None:
    session = TurnSession(Parrot(), activity=Activity(detector=Loud()))
    list(session.push(Audio(torch.zeros(480), 48_000)))
    with pytest.raises(AudioError, match="16000 Hz, and came at 48000"):
        list(session.push(Audio(torch.zeros(160), RATE)))
    with pytest.raises(AudioError, match="finite"):
        list(session.push(Audio(torch.full((480,), torch.nan), 48_000)))
    assert session.time == pytest.approx(0.01)
    with pytest.raises(ConfigError, match="silence"):
        TurnSession.Config(silence=0.0)


def test_a_model_that_hears_and_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights understand nothing, so that they are told to; what they say is long enough to be interrupted."""
    from lalia.model import dialogue
    from lalia.tokenizers import soft_text

    monkeypatch.setattr(soft_text.Heard, "understood", True)
    monkeypatch.setattr(dialogue, "in_circles", lambda ids: False)
    model = tiny_mini()
    question = Audio.load(Path(__file__).parents[2] / "examples/question.flac", mono=True).to(RATE).samples[0, 0]
    voice = question / question.abs().max()
    sound = torch.cat([torch.zeros(RATE // 2), voice, torch.zeros(3 * RATE), voice, torch.zeros(2 * RATE)])
    loud = Loud()
    monkeypatch.setattr(Loud, "__call__", lambda self, frame: float(frame.abs().max() > 0.02))
    with model.session(TurnSession.Config(silence=0.6), activity=Activity(detector=loud), max_tokens=60) as session:
        events = [(session.time, e) for x in sound.split(5 * PIECE) for e in session.push(Audio(x, RATE))]
    seen = kinds(events)
    assert seen[:2] == [Started, Stopped]
    assert seen.count(Stopped) == 2
    talk: Any = session.conversation
    assert len(talk.memory.turns) == 2
    assert int(talk.memory.state.position[0]) == talk.memory.used
