"""Conversations in real time: when somebody speaks, whose turn it is, and what becomes of an interrupted reply."""

from lalia.realtime.activity import Activity, Detector, Silero
from lalia.realtime.addressee import Addressee, Every, Near, Utterance, WakeWord
from lalia.realtime.controlled import ControlledSession
from lalia.realtime.controllers import Action, ActionTokens, Controller, Decision, Situation, StateHead, StateTokens
from lalia.realtime.duplex import Duplex, DuplexSession
from lalia.realtime.events import (
    Caption,
    Draft,
    DuplexEvent,
    Event,
    Finished,
    Heard,
    Ignored,
    Interrupted,
    Reply,
    Resumed,
    Said,
    SessionEvent,
    Sound,
    Started,
    Stopped,
    Truncated,
    Written,
)
from lalia.realtime.listening import Listening, Patience
from lalia.realtime.session import Session
from lalia.realtime.turns import Conversation, TurnSession

__all__ = [
    "Action",
    "ActionTokens",
    "Activity",
    "Addressee",
    "Caption",
    "ControlledSession",
    "Controller",
    "Conversation",
    "Decision",
    "Detector",
    "Draft",
    "Duplex",
    "DuplexEvent",
    "DuplexSession",
    "Event",
    "Every",
    "Finished",
    "Heard",
    "Ignored",
    "Interrupted",
    "Listening",
    "Near",
    "Patience",
    "Reply",
    "Resumed",
    "Said",
    "Session",
    "SessionEvent",
    "Silero",
    "Situation",
    "Sound",
    "Started",
    "StateHead",
    "StateTokens",
    "Stopped",
    "Truncated",
    "TurnSession",
    "Utterance",
    "WakeWord",
    "Written",
]
