"""Recordings one by one, so that one that cannot be judged is a failure that is told, and not the end."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from lalia.audio import Audio, AudioLike
from lalia.errors import LaliaError

__all__ = ["each"]

T = TypeVar("T")


def each(recordings: Mapping[str, AudioLike], judge: Callable[[Audio], T]) -> tuple[dict[str, T], list[dict[str, str]]]:
    """What is judged of each recording, in the order of ids, and why some have none.

    :param recordings: by id: paths, or what else `Audio.of` takes. Silence, what is too short to be speech, and what
        cannot be read are failures.
    :returns: by id, and ``{"id", "reason"}`` of each failure.
    """
    judged: dict[str, T] = {}
    failures: list[dict[str, str]] = []
    for key in sorted(recordings):
        try:
            judged[key] = judge(Audio.of(recordings[key]))
        except LaliaError as error:
            failures.append({"id": key, "reason": str(error)})
    return judged, failures
