"""What comes out of a conversation as it goes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lalia.audio import Audio
from lalia.streams import Streams

__all__ = [
    "Called",
    "Caption",
    "Draft",
    "DuplexEvent",
    "Event",
    "Finished",
    "Heard",
    "Ignored",
    "Interrupted",
    "Reply",
    "Resumed",
    "Said",
    "SessionEvent",
    "Sound",
    "Started",
    "Stopped",
    "Truncated",
    "Written",
]


@dataclass(frozen=True)
class Reply:
    """An answer.

    :param text: what the model says, where it has words for it; else empty.
    :param audio: how it says it; None where it was not asked for, or the model only writes.
    :param timings: ``first_audio_ms``, ``total_ms`` and ``rtf`` (seconds of work per second of speech).
    :param streams: all that the answer consists of, and what it answers to.
    """

    text: str
    audio: Audio | None
    timings: Mapping[str, float]
    streams: Streams = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Heard:
    """What the model has heard, in words, where it tells; and whether it takes it for what somebody said."""

    text: str
    understood: bool = True


@dataclass(frozen=True)
class Written:
    """A piece of the text of the reply."""

    text: str


@dataclass(frozen=True)
class Sound:
    """A piece of the reply [1, 1, N]."""

    audio: Audio


@dataclass(frozen=True)
class Called:
    """A function that the model asks for in place of an answer.

    :param arguments: JSON.
    """

    name: str
    arguments: str


@dataclass(frozen=True)
class Said:
    """The reply is over; all of it."""

    reply: Reply


Event = Heard | Written | Sound | Called | Said
"""Of one turn of the model."""


@dataclass(frozen=True)
class Started:
    """The user speaks, since ``at`` seconds of the session."""

    at: float


@dataclass(frozen=True)
class Draft:
    """What the user has said so far, as far as it is understood by now."""

    text: str


@dataclass(frozen=True)
class Stopped:
    """The user has said what he had to say; his last sound was at ``at`` seconds of the session."""

    at: float


@dataclass(frozen=True)
class Ignored:
    """What was heard, perhaps as words, and is not answered: nobody spoke, or it was not understood."""

    text: str


@dataclass(frozen=True)
class Interrupted:
    """The user speaks while a reply is heard: no more of it is to be played.

    :param heard: seconds of its sound that were played.
    :param text: the part of it that counts as said, where that is certain by now; ``Truncated`` tells otherwise.
    """

    heard: float
    text: str = ""


@dataclass(frozen=True)
class Truncated:
    """What interrupted the reply is to be answered: the rest of it was never said.

    :param heard: seconds of its sound that were played.
    :param text: the part of it that counts as said.
    """

    heard: float
    text: str


@dataclass(frozen=True)
class Resumed:
    """What was heard was no interruption: the reply goes on where it stopped, after ``heard`` seconds of its sound."""

    heard: float


@dataclass(frozen=True)
class Finished:
    """The sound of the reply has been played to its end."""


@dataclass(frozen=True)
class Caption:
    """A piece of what the user says, in words, where a model that hears and speaks at once writes that too."""

    text: str


DuplexEvent = Caption | Written | Sound
"""Of a model that hears and speaks at once."""

SessionEvent = Event | Started | Draft | Stopped | Ignored | Interrupted | Truncated | Resumed | Finished
