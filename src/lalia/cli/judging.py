"""What measures models, and what is measured: for the commands that do."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lalia.cli.options import load_model

__all__ = ["identity_of", "judges", "measured"]


def judges(folder: Path | None) -> Any:
    """The judges, which keep what they heard in a folder, with mini as the ears of the cascade."""
    from lalia.evaluation.benchmarks import Judges

    return Judges(folder, hear=_hearing)


def _hearing() -> Any:
    """mini, whose recogniser takes a sentence as it is where Whisper's own wants half a minute."""
    from lalia.evaluation.hearing import Hearing
    from lalia.model import load

    return Hearing(load("mini"), name="mini", version=(identity_of("mini") or "")[:12])


def measured(name: str, device: str, dtype: str) -> Callable[[], Any]:
    """What loads a model, or a tokenizer alone.

    :raises LaliaError: there is none by that name.
    """
    from lalia.model import find, holds_tokenizer

    return partial(_alone, name) if holds_tokenizer(find(name)) else partial(load_model, name, device, dtype)


def _alone(name: str) -> Any:
    from lalia.evaluation.alone import Alone
    from lalia.model import load_tokenizer

    return Alone(load_tokenizer(name))


def identity_of(name: str) -> str | None:
    """SHA-256 of all that a directory says of a model: its description, and its weights, its own or lent ones.

    None where it has no weights that are known.
    """
    from lalia.model import find
    from lalia.store import directory_identity

    return directory_identity(find(name))
