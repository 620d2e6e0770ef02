"""Scenes: users who are simulated by a script, played against a session in real time, and what it makes of them."""

from lalia.evaluation.scenes.folders import save_folders
from lalia.evaluation.scenes.judging import Judged, judge
from lalia.evaluation.scenes.playing import Played, Session, Told, play
from lalia.evaluation.scenes.script import At, Line, Reply, Scene, SceneKind

__all__ = [
    "At",
    "Judged",
    "Line",
    "Played",
    "Reply",
    "Scene",
    "SceneKind",
    "Session",
    "Told",
    "judge",
    "play",
    "save_folders",
]
