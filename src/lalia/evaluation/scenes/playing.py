"""Playing a scene against a session: both channels on one time line, and all that comes of it."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.evaluation.intervals import Interval
from lalia.evaluation.scenes.script import RATE, At, Line, Scene
from lalia.realtime.events import Interrupted, SessionEvent, Sound

__all__ = ["Played", "Session", "Told", "play"]

_LOUD = 10 ** (-45 / 20)
"""Of the model's sound, over which it is heard to speak."""

_REPLY_GAP = 0.6
"""Seconds of silence behind which what the model says is another reply."""

_LONGEST = 60.0
_TICK = 1e-3
_BUFFER = 1.0


class Session(Protocol):
    """What hears sound as it comes, and answers by events: ``TurnSession``, or one that is duplex."""

    def push(self, piece: Audio, /) -> Iterable[Any]: ...


@dataclass(frozen=True)
class Told:
    """An event.

    :param at: when it came, in seconds of the scene, as if no work took time.
    :param late: seconds that it came later, on this machine, if the scene were real: work is only done once the sound
        is there, and begins when the work before it is done.
    :param heard: from when to when its sound is heard, if nothing stops it; None where the event has none.
    """

    at: float
    late: float
    event: SessionEvent
    heard: Interval | None = None


@dataclass(frozen=True)
class Played:
    """A scene as it went.

    :param user: all that the model heard, [1, 1, N] at 16 kHz.
    :param model: what was heard of it, [1, 1, N] at its own rate.
    :param said: when each line was heard, where something is heard in it; None for one that was not said.
    :param late: seconds that the work lagged behind the sound after each frame.
    :param frame: seconds of each.
    :param work: seconds of work, altogether.
    """

    scene: Scene
    user: Audio
    model: Audio
    told: tuple[Told, ...]
    said: tuple[Interval | None, ...]
    late: tuple[float, ...]
    frame: float
    work: float

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.user.seconds

    def dialogue(self) -> Audio:
        """Both sides, [1, 2, N] at 16 kHz: what the model heard, and what it said."""
        n = self.user.samples.shape[-1]
        model = self.model.to(RATE).samples[0, 0, :n]
        return Audio(torch.stack([self.user.samples[0, 0], torch.nn.functional.pad(model, (0, n - len(model)))]), RATE)

    def without(self, *left_out: int) -> Audio:
        """What the model would have heard without some lines, on the same time line."""
        samples = torch.zeros_like(self.user.samples[0, 0])
        for i, (line, said) in enumerate(zip(self.scene.lines, self.said, strict=True)):
            if said is not None and i not in left_out:
                sound = line.sound.samples[0, 0]
                start = round((said.start - line.span.start) * RATE)
                samples[start : start + len(sound)] += sound[: max(len(samples) - start, 0)]
        return Audio(samples.clamp(-1, 1), RATE)

    def lateness(self, at: float) -> float:
        """Seconds that the work lagged behind at a moment of the scene."""
        if not self.late:
            return 0.0
        return self.late[min(max(round(at / self.frame) - 1, 0), len(self.late) - 1)]

    def sound_late(self, at: float) -> float:
        """Seconds by which what is heard of the model at a moment would come later if the scene were real.

        A loudspeaker that has nothing to play waits, and what comes behind waits with it: what counts is the latest
        piece of the second before, back to the silence that it followed.
        """
        waits, before = 0.0, at
        for t in reversed(self.told):
            if t.heard is None or t.heard.start > at:
                continue
            if t.heard.end < before - _TICK or before < at - _BUFFER:
                break
            waits, before = max(waits, t.at + t.late - t.heard.start), t.heard.start
        return waits


@dataclass
class _Loudspeaker:
    """Plays what comes, in order and without gaps, from the moment on at which it comes."""

    rate: int | None = None
    waiting: list[Tensor] = field(default_factory=list)
    heard: list[Tensor] = field(default_factory=list)
    count: int = 0

    def add(self, sound: Audio, before: float) -> Interval:
        """More sound, and when it is going to be heard.

        :param before: seconds that were silent so far, where there was none yet.
        """
        if self.rate is None:
            self.rate = sound.sample_rate
            self.count = round(before * self.rate)
            self.heard = [torch.zeros(self.count)]
        if sound.sample_rate != self.rate:
            raise ConfigError(f"The model speaks at {self.rate} Hz, and then at {sound.sample_rate} Hz. Keep to one.")
        start = (self.count + sum(map(len, self.waiting))) / self.rate
        self.waiting.append(sound.mono().samples[0, 0].detach().float().cpu())
        return Interval(start, start + len(self.waiting[-1]) / self.rate)

    def play(self, until: float) -> Tensor:
        """What is heard until a moment of the scene."""
        if self.rate is None:
            return torch.zeros(0)
        n = round(until * self.rate) - self.count
        sound = torch.cat([*self.waiting, torch.zeros(0)])
        now, rest = sound[:n], sound[n:]
        self.waiting = [rest] if len(rest) else []
        now = torch.nn.functional.pad(now, (0, n - len(now)))
        self.heard.append(now)
        self.count += n
        return now

    def stop(self) -> None:
        """Nothing of what waits is heard."""
        self.waiting = []


@dataclass
class _Stage:
    """Where a scene stands."""

    scene: Scene
    now: float = 0.0
    voice: Interval | None = None
    """Of the model, the latest run of it."""
    replies: list[float] = field(default_factory=list)
    """When each began to be heard."""
    starts: list[float | None] = field(default_factory=list)
    """When each line began to be played."""
    behind: float = 0.0
    """When the last line that was said, so far, is over."""
    over: bool = False
    """A line was due in a reply that is over."""

    def hear(self, sound: Tensor, start: float, end: float) -> None:
        """What the model is heard to say in a frame."""
        if len(sound) and float(sound.square().mean().sqrt()) > _LOUD:
            if self.voice is None or start - self.voice.end > _REPLY_GAP:
                self.replies.append(start)
                self.voice = Interval(start, end)
            else:
                self.voice = Interval(self.voice.start, end)

    def due(self, line: Line, until: float) -> float | None:
        """When a line begins, if that is in the frame that comes."""
        when = line.when
        if isinstance(when, At):
            at = when.seconds
        elif len(self.replies) < when.number:
            return None
        else:
            at = self.replies[when.number - 1] + when.seconds
            # It is only said into a reply that is still heard.
            if at < until and (self.voice is None or self.now - self.voice.end > _REPLY_GAP / 2):
                self.over = True
                return None
        return at if at < until else None

    def ended(self) -> bool:
        """Whether nothing more is to be learnt."""
        if self.over:
            return True
        silent_since = max(self.behind, 0.0 if self.voice is None else self.voice.end)
        if len(self.starts) < len(self.scene.lines):
            # A reply that never comes.
            waits = not isinstance(self.scene.lines[len(self.starts)].when, At)
            return waits and self.now - silent_since >= self.scene.wait
        if self.voice is not None and self.now - self.voice.end < _TICK:
            return self.now - max(self.behind, self.voice.start) >= self.scene.enough - _TICK
        return self.now - silent_since >= self.scene.wait


def play(
    scene: Scene,
    session: Session,
    *,
    frame: float = 0.08,
    clock: Callable[[], float] = time.perf_counter,
) -> Played:
    """Play a scene against a session, frame by frame; the session is not closed.

    What the model says is heard from the end of the frame on in which it came. ``Interrupted`` drops what was not heard
    by then.

    :param frame: seconds of sound that are pushed at once.
    :param clock: seconds, by which work is measured.
    """
    if not 0 < frame <= 1:
        raise ConfigError(f"A frame of {frame} s was asked for. Give more than 0 s and at most 1 s.")
    size = round(frame * RATE)
    frame = size / RATE
    stage, speaker = _Stage(scene), _Loudspeaker()
    heard: list[Tensor] = []
    told: list[Told] = []
    late: list[float] = []
    sounding: list[tuple[int, Tensor]] = []
    work, busy = 0.0, 0.0
    while not stage.ended() and stage.now < _LONGEST:
        start, end = stage.now, (len(heard) + 1) * frame
        # What is heard in this frame came before it.
        stage.hear(speaker.play(end), start, end)
        _begin_lines(stage, sounding, end)
        samples = _mixed(sounding, len(heard) * size, size)
        heard.append(samples)
        busy, began = max(busy, end), clock()
        for event in session.push(Audio(samples, RATE)):
            delay = busy + clock() - began - end
            if isinstance(event, Sound):
                told.append(Told(end, delay, event, speaker.add(event.audio, end)))
            else:
                if isinstance(event, Interrupted):
                    speaker.stop()
                told.append(Told(end, delay, event))
        spent = clock() - began
        work, busy = work + spent, busy + spent
        late.append(busy - end)
        stage.now = end
    user = Audio(torch.cat(heard), RATE)
    rate = speaker.rate or RATE
    spoken = torch.cat(speaker.heard) if speaker.heard else torch.zeros(0)
    n = round(stage.now * rate)
    model = Audio(torch.nn.functional.pad(spoken, (0, max(n - len(spoken), 0)))[:n], rate)
    said = []
    for i, line in enumerate(scene.lines):
        begun = stage.starts[i] if i < len(stage.starts) else None
        span = line.span
        said.append(None if begun is None else Interval(begun + span.start, begun + span.end))
    return Played(scene, user, model, tuple(told), tuple(said), tuple(late), frame, work)


def _begin_lines(stage: _Stage, sounding: list[tuple[int, Tensor]], until: float) -> None:
    """Begin the lines that are due in the frame that comes."""
    while len(stage.starts) < len(stage.scene.lines):
        line = stage.scene.lines[len(stage.starts)]
        at = stage.due(line, until)
        if at is None:
            return
        # One that is due already begins with the frame.
        at = round(max(at, stage.now) * RATE) / RATE
        stage.starts.append(at)
        stage.behind = max(stage.behind, at + line.span.end)
        sounding.append((round(at * RATE), line.sound.samples[0, 0]))


def _mixed(sounding: list[tuple[int, Tensor]], first: int, size: int) -> Tensor:
    """The sum of what sounds in a frame; what is over is forgotten."""
    samples = torch.zeros(size)
    for at, sound in sounding:
        low, high = max(at, first), min(at + len(sound), first + size)
        if low < high:
            samples[low - first : high - first] += sound[low - at : high - at]
    sounding[:] = [(at, sound) for at, sound in sounding if at + len(sound) > first + size]
    return samples.clamp(-1, 1)
