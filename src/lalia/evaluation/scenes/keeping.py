"""A scene that was played, as data from which it is judged again: JSON, and the sound of the model in a file."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, get_args

import torch

from lalia.audio import Audio
from lalia.evaluation.intervals import Interval
from lalia.evaluation.scenes.playing import Played, Told
from lalia.evaluation.scenes.script import RATE, Scene
from lalia.realtime.events import DuplexEvent, Reply, Said, SessionEvent, Sound

__all__ = ["from_data", "to_data"]

_PLAIN: Mapping[str, type[Any]] = {
    kind.__name__: kind for kind in get_args(SessionEvent | DuplexEvent) if kind not in (Sound, Said)
}
"""Events that are words and numbers."""


def to_data(played: Played) -> dict[str, Any]:
    """All but the sounds and the scene, JSON-ready; events of other kinds than lalia's are left out."""
    return {
        "seconds": played.seconds,
        "frame": played.frame,
        "work": played.work,
        "late": list(played.late),
        "said": [_ends(said) for said in played.said],
        "events": [
            {"at": t.at, "late": t.late, "heard": _ends(t.heard), **event}
            for t in played.told
            if (event := _event(t.event)) is not None
        ],
    }


def from_data(scene: Scene, data: Mapping[str, Any], model: Audio) -> Played:
    """The scene as it went. A piece of sound is what was heard of it, and a reply has no sound of its own.

    :param data: as of `to_data`.
    :param model: what was heard of the model.
    """
    told = []
    for x in data["events"]:
        heard = _interval(x["heard"])
        match x["kind"]:
            case "Sound":
                assert heard is not None
                event: Any = Sound(model.cut(heard.start, heard.end - heard.start))
            case "Said":
                event = Said(Reply(x["text"], None, x["timings"]))
            case kind:
                event = _PLAIN[kind](**x["of"])
        told.append(Told(x["at"], x["late"], event, heard))
    silence = Audio(torch.zeros(round(data["seconds"] * RATE)), RATE)
    said = tuple(map(_interval, data["said"]))
    played = Played(scene, silence, model, tuple(told), said, tuple(data["late"]), data["frame"], data["work"])
    # All that the user's side was made of.
    return replace(played, user=played.without())


def _event(event: Any) -> dict[str, Any] | None:
    kind = type(event).__name__
    if isinstance(event, Sound):
        return {"kind": kind}
    if isinstance(event, Said):
        return {"kind": kind, "text": event.reply.text, "timings": dict(event.reply.timings)}
    return {"kind": kind, "of": asdict(event)} if _PLAIN.get(kind) is type(event) else None


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.start, interval.end]


def _interval(ends: list[float] | None) -> Interval | None:
    return None if ends is None else Interval(*ends)
