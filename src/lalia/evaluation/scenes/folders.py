"""Scenes as the folders of Full-Duplex-Bench, for its own scorers and ours (``evaluation.full_duplex_folders``)."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lalia.errors import OutputError
from lalia.evaluation.intervals import Interval
from lalia.evaluation.scenes.playing import Played
from lalia.evaluation.scenes.script import Scene, SceneKind

__all__ = ["save_folders"]

_TASKS: Mapping[SceneKind, tuple[str, ...]] = {
    "turn": ("v1/smooth_turn_taking",),
    "pause": ("v1/pause_handling",),
    "interruption": ("v1/user_interruption", "v1.5/user_interruption"),
    "backchannel": ("v1.5/user_backchannel",),
    "unaddressed": ("v1.5/talking_to_other",),
    "background": ("v1.5/background_speech",),
    "overlap": ("v1.5/overlap",),
}
"""By the kind of scene. The last is ours: theirs has no user who speaks at once with somebody else."""


def save_folders(
    played: Iterable[Played], folder: str | Path, clean: Callable[[Scene], Played] | None = None
) -> dict[str, int]:
    """Write scenes that were played, each where its task is: ``v1/pause_handling/0/input.wav`` and so on.

    A scene whose line was never said is left out. One of a pause ends with the user's turn, for all that is said in it
    counts there.

    :param folder: made where it is not there.
    :param clean: plays a scene anew. With it, those of v1.5 that open with a question are played without the line that
        they are about, for ``clean_output.wav``; ``clean_input.wav`` is always there.
    :returns: how many samples each task has.
    :raises OutputError: it cannot be written.
    """
    counts: dict[str, int] = {}
    try:
        for scene in played:
            said = scene.said[scene.scene.about]
            if said is None:
                continue
            for task in _TASKS[scene.scene.kind]:
                number = counts.get(task, 0)
                home = Path(folder, task, str(number))
                home.mkdir(parents=True, exist_ok=True)
                _write(scene, said, home, task, clean)
                counts[task] = number + 1
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}). Name another folder.") from None
    return counts


def _write(played: Played, said: Interval, home: Path, task: str, clean: Callable[[Scene], Played] | None) -> None:
    line = played.scene.lines[played.scene.about]
    dialogue = played.dialogue()
    if task == "v1/pause_handling":
        dialogue = dialogue.cut(0, said.end)
    dialogue.channel(0).save(home / "input.wav")
    dialogue.channel(1).save(home / "output.wav")
    before = next((x for x in reversed(played.scene.lines[: played.scene.about]) if x.by == "user"), None)
    context = "" if before is None else before.text
    match task:
        case "v1/smooth_turn_taking":
            _save(home / "turn_taking.json", [_event("[TURN-TAKING]", said.end, played.seconds)])
        case "v1/pause_handling" if line.pause is not None:
            start = said.start - line.span.start
            _save(home / "pause.json", [_event("[PAUSE]", start + line.pause.start, start + line.pause.end)])
        case "v1/user_interruption":
            times = [round(said.start, 4), round(said.end, 4)]
            _save(home / "interrupt.json", [{"context": context, "interrupt": line.text, "timestamp": times}])
        case _:
            times = [round(said.start, 4), round(said.end, 4)]
            data = {"context_text": context, "current_turn_text": line.text, "timestamps": times}
            _save(home / "metadata.json", data)
            played.without(played.scene.about).save(home / "clean_input.wav")
            without = played.scene.clean()
            if clean is not None and without is not None:
                clean(without).dialogue().channel(1).save(home / "clean_output.wav")


def _event(text: str, start: float, end: float) -> dict[str, Any]:
    return {"text": text, "timestamp": [round(start, 4), round(end, 4)]}


def _save(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", "utf-8")
