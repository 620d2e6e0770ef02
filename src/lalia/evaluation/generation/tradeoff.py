"""Quality against diversity over sampling temperatures: the PPX-VERT curve of GSLM (Lakhotia et al., arXiv:2102.01192).

A model that samples coldly is understood and repeats itself; hotly, it does neither. So it is measured at several
temperatures, and compared with the oracle, the true texts that go on where its prompts stop:

- PPX at oracle VERT: how well it speaks where it is as diverse as people are,
- VERT at oracle PPX: how diverse it is where it speaks as well as they do,
- the area under the curve between these two points.

All three are the lower the better. Not confirmed from a source, as they are in a notebook that is not at hand: the grid
of temperatures, how GSLM interpolates, and the bounds and the scale of its area. Here the area is that of ln PPX over
VERT as a share of 1. ContentVec (Qian et al., arXiv:2204.09224, section 4.3) names the same three figures and no more;
tGSLM (arXiv:2310.05224) fits a cubic.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any, Literal

import numpy as np

from lalia.errors import ConfigError, DataError
from lalia.evaluation.generation.diversity import mean_of, vert
from lalia.evaluation.statistics import bootstrap_many

__all__ = ["Average", "Curve", "Fit", "Measured", "Oracle", "Point", "Reading", "evaluate_tradeoff"]

Fit = Literal["log-linear", "cubic"]
"""ln PPX as a function of VERT: straight from point to point, or the cubic nearest to all in least squares."""

Average = Literal["mean", "geometric"]
"""Of perplexities, see `perplexity`."""

Measured = tuple[Mapping[str, Any], Mapping[str, Any]]
"""What `evaluate_perplexity` and `evaluate_diversity` return of the same texts."""

_RESAMPLES = 2_000
_STEPS = 512
"""Of VERT, at which a cubic is followed."""


@dataclass(frozen=True)
class Point:
    """What texts sampled at a temperature are like."""

    temperature: float
    ppx: float
    vert: float


@dataclass(frozen=True)
class Oracle:
    """What true texts are like."""

    ppx: float
    vert: float


@dataclass(frozen=True)
class Reading:
    """What a curve says beside an oracle; NaN where it does not reach as far, for nothing is extrapolated."""

    ppx_at_oracle_vert: float
    vert_at_oracle_ppx: float
    area: float


class Curve:
    """ln PPX over VERT, between the lowest and the highest VERT that was measured.

    :param points: of temperatures that differ.
    :raises DataError: there are too few (2, for a cubic 4), two of one temperature, or one that is no number.
    """

    def __init__(self, points: Sequence[Point], fit: Fit = "log-linear") -> None:
        if fit not in ("log-linear", "cubic"):
            raise ConfigError(f"There is no fit {fit!r}. Choose log-linear or cubic.")
        for p in points:
            if not (math.isfinite(p.ppx) and p.ppx > 0 and math.isfinite(p.vert)):
                raise DataError(f"Temperature {p.temperature:g} has PPX {p.ppx} and VERT {p.vert}. Leave it out.")
        needed = 4 if fit == "cubic" else 2
        if len({p.temperature for p in points}) < len(points) or len({p.vert for p in points}) < needed:
            raise DataError(f"A {fit} curve is of {needed} temperatures or more. Give each once, and sample at others.")
        # Of points with one VERT, which only chance makes, the mean.
        measured: dict[float, list[float]] = {}
        for p in points:
            measured.setdefault(p.vert, []).append(math.log(p.ppx))
        self.verts = np.array(sorted(measured))
        self.logs = np.array([math.fsum(measured[v]) / len(measured[v]) for v in self.verts])
        if fit == "cubic":
            cubic = np.polynomial.Polynomial.fit(self.verts, self.logs, 3)
            self.verts = np.linspace(self.verts[0], self.verts[-1], _STEPS)
            self.logs = cubic(self.verts)

    def ppx(self, vert: float) -> float:
        """The PPX at a VERT; NaN outside of what was measured."""
        inside = self.verts[0] <= vert <= self.verts[-1]
        return float(np.exp(np.interp(vert, self.verts, self.logs))) if inside else math.nan

    def vert(self, ppx: float) -> float:
        """The VERT at a PPX: the lowest, where noise makes several; NaN outside of what was measured."""
        above = self.logs - math.log(ppx)
        for i in range(len(above) - 1):
            if above[i] == 0:
                return float(self.verts[i])
            if above[i] * above[i + 1] < 0:
                share = above[i] / (above[i] - above[i + 1])
                return float(self.verts[i] + share * (self.verts[i + 1] - self.verts[i]))
        return float(self.verts[-1]) if above[-1] == 0 else math.nan

    def read(self, oracle: Oracle) -> Reading:
        """PPX at oracle VERT, VERT at oracle PPX, and the area under ln PPX from the one VERT to the other.

        The area is negative where the model at oracle PPX is more diverse than the oracle.
        """
        end = self.vert(oracle.ppx)
        return Reading(self.ppx(oracle.vert), end, self.area(oracle.vert, end))

    def area(self, start: float, end: float) -> float:
        """Of ln PPX over VERT; NaN outside of what was measured."""
        low, high = sorted((start, end))
        if not (self.verts[0] <= low and high <= self.verts[-1]):
            return math.nan
        inner = self.verts[(self.verts > low) & (self.verts < high)]
        at = np.array([low, *inner, high])
        size = float(np.trapezoid(np.interp(at, self.verts, self.logs), at))
        return size if start <= end else -size


def evaluate_tradeoff(
    sampled: Mapping[float, Measured],
    oracle: Measured,
    *,
    average: Average = "mean",
    fit: Fit = "log-linear",
    seed: int = 0,
) -> dict[str, Any]:
    """The curve of a model and its readings beside true texts, with intervals bootstrapped over prompts.

    Texts of one id are of one prompt at every temperature, and are drawn together; the oracle stays as it is.

    :param sampled: by temperature, what `evaluate_perplexity` and `evaluate_diversity` returned of the texts.
    :param oracle: what they returned of the true texts.
    :param average: of perplexities: ``mean`` is GSLM's.
    :returns: ``points``; ``oracle``; ``summary``: estimates of the three figures, null where the curve does not reach
        the oracle; their intervals are those of the resamples in which it does.
    :raises DataError: there are too few temperatures, or nothing was measured at one.
    """
    if average not in ("mean", "geometric"):
        raise ConfigError(f"There is no average {average!r} of perplexities. Choose mean or geometric.")
    temperatures = sorted(sampled)
    for name, parts in [*((f"temperature {t:g}", sampled[t]) for t in temperatures), ("the oracle", oracle)]:
        if not all(part["items"] for part in parts):
            raise DataError(f"Nothing was measured at {name}. Leave it out, or see why all its texts failed.")
    ids = sorted({item["id"] for parts in sampled.values() for part in parts for item in part["items"]})
    columns = [column for t in temperatures for column in _columns(sampled[t], ids)]
    own = sorted({item["id"] for part in oracle for item in part["items"]})
    ((ppx, diversity),) = _figures([np.array([column]) for column in _columns(oracle, own)], average)
    aim = Oracle(float(ppx[0]), float(diversity[0]))

    def curve(figures: Sequence[tuple[np.ndarray, np.ndarray]], r: int) -> list[Point]:
        return [Point(t, float(p[r]), float(v[r])) for t, (p, v) in zip(temperatures, figures, strict=True)]

    def readings(*drawn: np.ndarray) -> np.ndarray:
        figures = _figures(drawn, average)
        return np.array([_read(curve(figures, r), fit, aim) for r in range(len(drawn[0]))])

    points = curve(_figures([np.array([column]) for column in columns], average), 0)
    Curve(points, fit)  # says what is wrong with them
    names = [f.name for f in fields(Reading)]
    estimates = bootstrap_many(readings, *columns, figures=len(names), seed=seed, resamples=_RESAMPLES)
    return {
        "settings": {"average": average, "fit": fit, "resamples": _RESAMPLES},
        "points": [asdict(p) for p in points],
        "oracle": asdict(aim),
        "summary": {name: e.to_dict() for name, e in zip(names, estimates, strict=True)},
    }


def _columns(measured: Measured, ids: Sequence[str]) -> list[list[float]]:
    """NLL, self-BLEU2 and auto-BLEU2 by id; NaN where a text has none."""
    surprise, diversity = ({item["id"]: item for item in part["items"]} for part in measured)
    return [
        [found[i][name] if i in found else math.nan for i in ids]
        for found, name in ((surprise, "nll"), (diversity, "self_bleu2"), (diversity, "auto_bleu2"))
    ]


def _figures(columns: Sequence[np.ndarray], average: Average) -> list[tuple[np.ndarray, np.ndarray]]:
    """PPX and VERT [R] of each temperature, from three columns [R, n] for each."""
    found = []
    for nll, others, itself in zip(columns[::3], columns[1::3], columns[2::3], strict=True):
        ppx = mean_of(np.exp(nll)) if average == "mean" else np.exp(mean_of(nll))
        found.append((ppx, vert(others, itself)))
    return found


def _read(points: Sequence[Point], fit: Fit, aim: Oracle) -> tuple[float, ...]:
    try:
        return astuple(Curve(points, fit).read(aim))
    except DataError:
        # A resample may have no texts of a temperature, or no diversity at all.
        return (math.nan,) * len(fields(Reading))
