"""The script of a scene: who says what, and when."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.evaluation.energy import mean_power, speech_span
from lalia.evaluation.intervals import Interval

__all__ = ["RATE", "SCENE_KINDS", "At", "Line", "Reply", "Scene", "SceneKind"]

RATE = 16_000
"""Of what a session hears, in Hz."""

SceneKind = Literal["turn", "pause", "backchannel", "interruption", "background", "overlap", "unaddressed"]
SCENE_KINDS: tuple[SceneKind, ...] = get_args(SceneKind)


@dataclass(frozen=True)
class At:
    """So many seconds after the scene began."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """So many seconds after a reply of the model is first heard, while it is still heard.

    :param number: of the reply, from 1.
    """

    seconds: float
    number: int = 1


@dataclass(frozen=True)
class Line:
    """Something that is heard by the model.

    :param sound: [1, 1, N] at 16 kHz.
    :param when: it begins to be heard.
    :param by: the user, somebody else, or nobody.
    :param text: the words, where there are any.
    :param name: of the clip, for the record.
    :param pause: within the sound, in seconds: the silence that was put into it.
    """

    sound: Audio = field(repr=False)
    when: At | Reply
    by: Literal["user", "other", "noise"] = "user"
    text: str = ""
    name: str = ""
    pause: Interval | None = None

    def __post_init__(self) -> None:
        if self.sound.sample_rate != RATE or self.sound.samples.shape[:2] != (1, 1):
            raise ConfigError(f"The line {self.name!r} is {self.sound}. Give one channel at {RATE} Hz.")
        if self.when.seconds < 0:
            raise ConfigError(f"The line {self.name!r} begins at {self.when.seconds} s. Give no less than 0 s.")

    @property
    def span(self) -> Interval:
        """Where in the sound something is heard: what lies within 35 dB of its loudest 20 ms."""
        start, end = speech_span(mean_power(self.sound))
        return Interval(start / RATE, end / RATE)


@dataclass(frozen=True)
class Scene:
    """What a user, and those around him, say.

    A scene ends ``wait`` seconds behind its last line, and while a reply is heard not before that has gone on for
    ``enough`` seconds: more of it would be work for nothing. It also ends where a line is due in a reply that is over
    by then, or that never comes.

    :param lines: in the order in which they are said.
    :param about: which line the scene is about, counted from 0.
    :param variant: of its kind, for the record.
    """

    kind: SceneKind
    name: str
    lines: tuple[Line, ...]
    about: int = 0
    variant: str = ""
    wait: float = 4.0
    enough: float = 1.2

    def __post_init__(self) -> None:
        if not 0 <= self.about < len(self.lines):
            raise ConfigError(f"The scene {self.name!r} is about line {self.about} of {len(self.lines)}. Count from 0.")
        if not (self.wait > 0 and self.enough >= 0):
            raise ConfigError(
                f"The scene {self.name!r} waits {self.wait} s, and hears {self.enough} s of a reply. Give more than 0 "
                "s of waiting, and no less than 0 s of a reply."
            )

    def clean(self) -> "Scene | None":
        """The scene without the line that it is about, where there is another before that."""
        lines = self.lines[: self.about]
        return replace(self, lines=lines, about=len(lines) - 1) if lines else None

    def to_dict(self) -> dict[str, Any]:
        """The script, JSON-ready, without the sound."""
        lines = [
            {
                "clip": line.name,
                "by": line.by,
                "text": line.text,
                **({"at": line.when.seconds} if isinstance(line.when, At) else {"into_reply": line.when.seconds}),
            }
            for line in self.lines
        ]
        return {"id": self.name, "kind": self.kind, "variant": self.variant, "lines": lines}
