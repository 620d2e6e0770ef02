"""Conversations in real time: when somebody speaks, whose turn it is, and what becomes of an interrupted reply."""

from lalia.realtime.activity import Activity, Detector, Silero
from lalia.realtime.events import (
    Draft,
    Event,
    Finished,
    Heard,
    Ignored,
    Interrupted,
    Reply,
    Said,
    SessionEvent,
    Sound,
    Started,
    Stopped,
    Written,
)
from lalia.realtime.listening import Listening, Patience
from lalia.realtime.turns import Conversation, TurnSession

__all__ = [
    "Activity",
    "Conversation",
    "Detector",
    "Draft",
    "Event",
    "Finished",
    "Heard",
    "Ignored",
    "Interrupted",
    "Listening",
    "Patience",
    "Reply",
    "Said",
    "SessionEvent",
    "Silero",
    "Sound",
    "Started",
    "Stopped",
    "TurnSession",
    "Written",
]
