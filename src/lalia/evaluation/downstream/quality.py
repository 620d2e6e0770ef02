"""Enhanced speech against clean speech: PESQ and STOI, by the packages that their authors' code became."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError, MissingDependency
from lalia.evaluation.scored import Counts, Scored, by_id
from lalia.evaluation.statistics import mean

__all__ = ["QualityMeasure", "speech_quality"]

QualityMeasure = Literal["pesq_wb", "pesq_nb", "stoi", "estoi"]
_RATES: Mapping[QualityMeasure, int] = {"pesq_wb": 16_000, "pesq_nb": 8_000, "stoi": 10_000, "estoi": 10_000}


def speech_quality(
    references: Mapping[str, Audio],
    outputs: Mapping[str, Audio | None],
    *,
    measures: Sequence[QualityMeasure] = ("pesq_wb", "stoi"),
    seed: int = 0,
) -> Scored:
    """Means over recordings of PESQ (ITU-T P.862, with .1 for ``nb`` and .2 for ``wb``) and of STOI (Taal et al. 2011).

    Sound is brought to 16 kHz (``pesq_wb``), 8 kHz (``pesq_nb``) or 10 kHz (STOI) by lalia's resampler; the longer of
    the two is cut. A recording that a measure cannot score (PESQ finds no utterance) has failed, and takes no part in
    any mean.

    :raises DataError: nothing could be scored, or an output has no reference.
    :raises ConfigError: an unknown measure.
    :raises MissingDependency: pesq or pystoi is not installed.
    """
    for name in measures:
        if name not in get_args(QualityMeasure):
            raise ConfigError(f"There is no measure {name!r}. There are {', '.join(get_args(QualityMeasure))}.")
    rows, items = by_id(references, outputs), []
    for key, clean, output in rows:
        item: dict[str, Any] = {"id": key, "answered": output is not None}
        if output is not None:
            try:
                item |= {name: _measure(name, clean, output) for name in measures}
            except DataError as error:
                item = {"id": key, "answered": False, "reason": str(error)}
        items.append(item)
    answered = [x for x in items if x["answered"]]
    if not answered:
        raise DataError("No recording could be scored. Give outputs that are as long as the references, and speech.")
    packages = {"pesq" if name.startswith("pesq") else "pystoi" for name in measures}
    return Scored(
        figures={name: mean([x[name] for x in answered], seed=seed) for name in measures},
        counts=Counts(len(rows), len(answered), failed=len(rows) - len(answered)),
        items=items,
        settings={name: importlib.metadata.version(name) for name in sorted(packages)},
    )


def _measure(name: QualityMeasure, clean: Audio, output: Audio) -> float:
    rate = _RATES[name]
    a, b = (x.row(0).mono().to(rate).samples[0, 0].double().numpy() for x in (clean, output))
    n = min(len(a), len(b))
    a, b = a[:n], b[:n]
    match name:
        case "pesq_wb" | "pesq_nb":
            return _pesq(a, b, rate, name.removeprefix("pesq_"))
        case "stoi" | "estoi":
            return _stoi(a, b, rate, extended=name == "estoi")


def _pesq(clean: np.ndarray, output: np.ndarray, rate: int, mode: str) -> float:
    try:
        from pesq import PesqError, pesq
    except ImportError:
        raise MissingDependency("pesq", "eval") from None
    try:
        return float(pesq(rate, clean, output, mode))
    except (PesqError, ValueError) as error:
        reason = error.args[0] if error.args else error
        reason = reason.decode() if isinstance(reason, bytes) else reason
        raise DataError(f"PESQ gives no score ({reason}). Give at least 0.25 s of speech.") from None


def _stoi(clean: np.ndarray, output: np.ndarray, rate: int, *, extended: bool) -> float:
    try:
        from pystoi import stoi
    except ImportError:
        raise MissingDependency("pystoi", "eval") from None
    import warnings

    with warnings.catch_warnings():
        # Under 30 frames of speech it warns, and returns 1e-5, which is no score.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(stoi(clean, output, rate, extended=extended))
        except (RuntimeWarning, ValueError) as error:
            raise DataError(f"STOI gives no score ({str(error)[:60]}). Give at least 0.4 s of speech.") from None
