"""What a run remembers of itself, so that it is gone on with as it was begun."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lalia.config import from_dict, to_dict
from lalia.errors import CheckpointError, LaliaError, OutputError
from lalia.files import atomic_write
from lalia.store import DESCRIPTION

__all__ = ["remember"]

_PLAN = "plan.json"

_FREE = ("max_steps", "max_seconds", "log_every", "eval_every", "save_every", "keep_checkpoints", "tensorboard")
"""What may change when a run is resumed: for how long it is trained, and what is reported."""


def remember(run: Path, plan: Mapping[str, Any], *, begun: bool, resume: bool) -> None:
    """Write the plan of a run into it, or see that it is the one there.

    :param plan: plain data; ``recipe`` is a configuration.
    :param begun: there is something to go on from.
    :param resume: it is meant to go on.
    :raises OutputError: the folder has something else in it, or a run that is not to be resumed.
    :raises CheckpointError: the run was started with other settings.
    """
    path = run / _PLAN
    if path.is_file():
        if begun and not resume:
            raise OutputError(f"{run} holds a run already. Go on with --resume, or name another folder.")
        differing = _difference(_read(path), _lasting(plan))
        if differing is not None:
            raise CheckpointError(
                f"{run} was started with another {differing}. Give the same settings, or name another folder."
            )
    elif any(not entry.name.startswith(".") for entry in run.iterdir()):
        what = "holds a model or a tokenizer" if (run / DESCRIPTION).exists() else "is not empty"
        raise OutputError(f"{run} {what}. Name a new folder for the run.")
    with atomic_write(path) as part:
        part.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")


def _read(path: Path) -> Any:
    """What of a plan lasts, as this version writes it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        plain = data if "recipe" in data else {"recipe": data}
        return _lasting({**plain, "recipe": to_dict(from_dict(plain["recipe"]))})
    except (OSError, ValueError, TypeError, LaliaError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise CheckpointError(f"{path} cannot be read ({reason}). Name another folder for the run.") from None


def _lasting(plan: Any) -> Any:
    if isinstance(plan, Mapping):
        return {k: _lasting(v) for k, v in plan.items() if k not in _FREE}
    return [_lasting(v) for v in plan] if isinstance(plan, list) else plan


def _difference(before: Any, now: Any, where: str = "") -> str | None:
    """The first place where two plans differ; what only the later one says does not count at the top."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = before.keys() if not where else [*before, *(k for k in now if k not in before)]
        found = (_difference(before.get(k), now.get(k), f"{where}.{k}".lstrip(".")) for k in keys)
        return next((f for f in found if f is not None), None)
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        found = (_difference(a, b, f"{where}.{i}") for i, (a, b) in enumerate(zip(before, now, strict=True)))
        return next((f for f in found if f is not None), None)
    return None if before == now else where.removeprefix("recipe.")
