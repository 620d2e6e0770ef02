"""What a model made of a scene: whether it took the turn, kept silent, went on or stopped, and how soon."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lalia.audio import Audio
from lalia.evaluation.energy import mean_power
from lalia.evaluation.intervals import Interval, Speech, merged
from lalia.evaluation.scenes.playing import Played
from lalia.evaluation.scenes.script import Reply
from lalia.realtime.events import Finished, Heard, Ignored, Interrupted, Resumed, Written

__all__ = ["Judged", "judge", "voice"]

_GAP = 0.5
"""Seconds of silence within what a model says at once (Full-Duplex-Bench v1.5)."""

_TURN_SECONDS, _TURN_WORDS = 1.0, 3
"""A turn lasts as long, or has more words (Full-Duplex-Bench v1)."""

_YIELDS = 0.5
"""Seconds behind what the user says until which a model that falls silent did so for him."""

_NATURAL = 0.3
"""Seconds between the end of a reply and the event that tells of it."""

_QUIET = 10 ** (-45 / 10)


@dataclass(frozen=True)
class Judged:
    """What came of the line that the scene is about.

    :param void: why nothing can be said: it was never said, or not into a reply; else empty.
    :param early: it began to speak within the line, in its pause or behind that.
    :param took: it took the turn behind the line, by the rule of Full-Duplex-Bench: speech of 1 s, or over 3 words.
    :param silent: it began to say nothing since the line began.
    :param latency: seconds from the end of the line to the first sound behind it, or 0; None where the turn is not
        taken.
    :param latency_late: seconds by which the work of this machine is later.
    :param stopped: it fell silent for the line, up to 0.5 s behind it; None where it did not speak, or where the reply
        came to its own end by then.
    :param stop: seconds from the beginning of the line to silence; None where it did not stop.
    :param stop_late: seconds by which the work of this machine is later.
    :param resumed: it went on with the reply that stopped for the line, and so answered nothing; what is heard of that
        is no turn that it took.
    :param heard: what it says that it heard since the line began.
    :param ignored: what it heard since and says that it does not answer.
    :param written: what it wrote since.
    """

    void: str
    early: bool = False
    took: bool = False
    silent: bool = True
    latency: float | None = None
    latency_late: float = 0.0
    stopped: bool | None = None
    stop: float | None = None
    stop_late: float = 0.0
    resumed: bool = False
    heard: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    written: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return dict(vars(self), heard=list(self.heard), ignored=list(self.ignored))


def voice(model: Audio, speech: Speech) -> tuple[Interval, ...]:
    """When a model speaks: where speech is found, from the first sound of it to the last.

    A detector of speech is sure some frames late; what counts is the sound.
    """
    runs = speech(model)
    if not runs:
        return ()
    power, rate = mean_power(model), model.sample_rate
    found = []
    for run in runs:
        low, high = round(run.start * rate), round(run.end * rate)
        loud = np.flatnonzero(power[low:high] > _QUIET)
        if len(loud):
            found.append(Interval((low + int(loud[0])) / rate, (low + int(loud[-1]) + 1) / rate))
    return merged(found, _GAP)


def judge(played: Played, speech: Speech) -> Judged:
    """What came of a scene.

    :param speech: finds where the model speaks.
    """
    line, said = played.scene.lines[played.scene.about], played.said[played.scene.about]
    if said is None:
        return Judged("there was no reply to speak into" if isinstance(line.when, Reply) else "it was never said")
    runs = voice(played.model, speech)
    running = next((x for x in runs if x.start < said.start < x.end), None)
    if isinstance(line.when, Reply) and running is None:
        return Judged("the reply was over")
    since = [t for t in played.told if t.at >= said.start]
    written = "".join(t.event.text for t in since if isinstance(t.event, Written)).strip()
    new = [x for x in runs if x.start >= said.start]
    # What began before the pause of a sentence would be no answer to it either.
    within = said.start if line.pause is None else said.start - line.span.start + line.pause.start
    resumed = any(isinstance(t.event, Resumed) for t in since)
    if resumed:
        new = []
    early = any(within <= x.start < said.end for x in new)
    behind = [x for x in new if x.end > said.end]
    took = bool(behind) and (behind[-1].end - behind[0].start >= _TURN_SECONDS or len(written.split()) > _TURN_WORDS)
    stopped, stop = _stop(played, running, said)
    return Judged(
        "",
        early=early,
        took=took,
        silent=not new,
        latency=max(behind[0].start - said.end, 0.0) if took else None,
        latency_late=played.sound_late(behind[0].start) if took else 0.0,
        stopped=stopped,
        stop=stop,
        stop_late=0.0 if stop is None else _stop_late(played, said.start + stop),
        resumed=resumed,
        heard=tuple(t.event.text for t in since if isinstance(t.event, Heard)),
        ignored=tuple(t.event.text for t in since if isinstance(t.event, Ignored)),
        written=written,
    )


def _stop(played: Played, running: Interval | None, said: Interval) -> tuple[bool | None, float | None]:
    """Whether what was said as a line began stopped for it, and after how many seconds."""
    if running is None:
        return None, None
    if any(isinstance(t.event, Finished) and abs(t.at - running.end) <= _NATURAL for t in played.told):
        return (False, None) if running.end > said.end + _YIELDS else (None, None)
    stopped = running.end <= said.end + _YIELDS
    return stopped, running.end - said.start if stopped else None


def _stop_late(played: Played, at: float) -> float:
    """By how much it would have fallen silent later with the work."""
    before = [t for t in played.told if isinstance(t.event, Interrupted) and t.at <= at + played.frame / 2]
    return before[-1].late if before else played.lateness(at)
