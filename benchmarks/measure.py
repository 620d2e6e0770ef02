"""Measuring one case: two fresh processes and a probe of the machine take turns, round by round."""

import json
import os
import platform
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.cases import Case

__all__ = ["Failed", "Machine", "Probe", "Result", "Spread", "Work", "Worker", "Works", "measure", "measure_works"]

_ROOT = Path(__file__).resolve().parents[1]
_PATIENCE = 900.0
"""Seconds after which a silent worker is given up."""


class Failed(Exception):
    """A worker stopped; the text is the last line that it left."""


@dataclass(frozen=True)
class Spread:
    """Repeated measurements: the median and what they lie between."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Result:
    """What came out of a case.

    :param value: of lalia and of the peer, where there is one, in the case's quantity.
    :param speed: how many times faster lalia is, round by round; None without a peer.
    :param cpu_value: lalia's median by the time that the processors spent instead of the time that passed: other
        processes disturb it less.
    :param cpu_speed: how many times less processor time lalia takes.
    :param limit: the value at which the machine would be the bound.
    :param used: the share of the limit that lalia reaches, by speed.
    :param peak: most memory of each, in bytes.
    :param rounds: everything that was measured.
    """

    case: Case
    value: tuple[Spread, ...]
    speed: Spread | None
    cpu_value: float
    cpu_speed: Spread | None
    limit: float
    used: float
    peak: tuple[int, ...]
    rounds: Sequence[Mapping[str, Any]]

    @property
    def reached(self) -> bool | None:
        """Whether the aim is; None where there is none."""
        aim = self.case.aim
        if aim is None:
            return None
        if aim.of == "ratio":
            assert self.speed is not None
            return self.speed.median >= aim.number
        ours = self.value[0].median
        return ours <= aim.number if self.case.quantity == "real-time factor" else ours >= aim.number


@dataclass(frozen=True)
class Work:
    """One of the works of a case that has several.

    :param steps: per second, and ``tokens``; None where there are none to count.
    :param factor: seconds of computing per second of sound; None where no clock tells.
    """

    steps: Spread
    tokens: Spread | None
    factor: Spread | None


@dataclass(frozen=True)
class Works:
    """What came out of a case of several works, which nobody does beside lalia."""

    case: Case
    works: Mapping[str, Work]
    peak: int
    rounds: Sequence[Mapping[str, Any]]


class Worker:
    """A process of ``benchmarks.worker`` and what it says; ends with the ``with`` block."""

    def __init__(self, module: str, side: str, options: Mapping[str, Any], threads: int) -> None:
        job = {"module": module, "side": side, "options": dict(options), "threads": threads}
        # A copy of the log on disk: a full pipe would block the worker.
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps(job)],
            cwd=_ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "TRANSFORMERS_VERBOSITY": "error"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command + "\n")
        except BrokenPipeError:
            raise Failed(self._last_line()) from None
        return self.listen()

    def listen(self) -> dict[str, Any]:
        """The next answer.

        :raises Failed: there is none.
        """
        out = self._process.stdout
        assert out is not None
        ready, _, _ = select.select([out], [], [], _PATIENCE)
        line = out.readline() if ready else ""
        if not line:
            raise Failed(self._last_line() if ready else f"no answer within {_PATIENCE:.0f} s")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_line(self) -> str:
        self._process.wait()
        self._log.seek(0)
        return next((line.strip() for line in reversed(self._log.readlines()) if line.strip()), "it died silently")


class Probe:
    """The process that measures the limits of the machine; serves all cases."""

    def __init__(self, threads: int) -> None:
        self._worker = Worker("limits", "probe", {}, threads)
        self._ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.__exit__()

    def measure(self) -> dict[str, float]:
        """Operations per second in ``fp32`` and ``bf16``, and ``bytes`` copied or ``read`` per second."""
        if not self._ready:
            self._worker.listen()
            self._ready = True
        return self._worker.ask("go")


def measure(case: Case, probe: Probe, *, rounds: int, threads: int, quick: bool, tell: Callable[[str], None]) -> Result:
    """Measure one case.

    :param rounds: how often each side works.
    :param tell: called with what is going on.
    :raises Failed: a side stopped, or the two do not compute the same.
    """
    options = _options(case, rounds, quick)
    tell("preparing")
    names = ("lalia",) if case.peer is None else ("lalia", "peer")
    with ExitStack() as stack:
        sides = {n: stack.enter_context(Worker(case.module, n, options, threads)) for n in names}
        facts = {n: side.listen() for n, side in sides.items()}
        _agree(list(facts.values()))
        measured: list[dict[str, Any]] = []
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            # A B, B A, A B: what drifts does not favour who comes first.
            turns = names if number % 2 == 0 else names[::-1]
            answers = {n: sides[n].ask("go") for n in turns}
            measured.append({**answers, "machine": probe.measure()})
        tell("finishing")
        peaks = tuple(int(side.ask("end")["peak"]) for side in sides.values())
        # The peer has nothing more to say.
        work: dict[str, float] = sides["lalia"].listen()["last"]
    return _evaluate(case, {n: float(f["amount"]) for n, f in facts.items()}, measured, work, peaks)


def measure_works(case: Case, *, rounds: int, threads: int, quick: bool, tell: Callable[[str], None]) -> Works:
    """Measure a case of several works; parameters as of ``measure``.

    :raises Failed: it stopped.
    """
    tell("preparing")
    with Worker(case.module, "lalia", _options(case, rounds, quick), threads) as side:
        amounts: dict[str, dict[str, float]] = side.listen()["works"]
        measured = []
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            measured.append(side.ask("go")["works"])
        peak = int(side.ask("end")["peak"])

    def per_second(name: str, what: str) -> list[float]:
        return [amounts[name][what] / m[name]["wall"] for m in measured]

    works = {}
    for name, amount in amounts.items():
        tokens = Spread.of(per_second(name, "tokens")) if amount["tokens"] else None
        factor = Spread.of([1 / rate for rate in per_second(name, "seconds")]) if amount["seconds"] else None
        works[name] = Work(Spread.of(per_second(name, "steps")), tokens, factor)
    return Works(case, works, peak, measured)


def _options(case: Case, rounds: int, quick: bool) -> dict[str, Any]:
    return {**case.options, **(case.quick if quick else {}), "rounds": rounds}


def _agree(facts: Sequence[Mapping[str, float]]) -> None:
    """Both sides must have computed the same number from the same weights and input."""
    a, b = facts[0].get("check"), facts[-1].get("check")
    if a is not None and b is not None and abs(a - b) > 1e-3 * abs(a):
        raise Failed(f"the sides are not the same model: {a:.6g} here, {b:.6g} there")


def _evaluate(
    case: Case,
    amounts: Mapping[str, float],
    measured: Sequence[Mapping[str, Any]],
    work: Mapping[str, float],
    peak: tuple[int, ...],
) -> Result:
    def rates(side: str, clock: str) -> list[float]:
        return [amounts[side] / m[side][clock] for m in measured]

    def ratio(clock: str) -> Spread | None:
        """How many times faster lalia is."""
        if case.peer is None:
            return None
        return Spread.of([a / b for a, b in zip(rates("lalia", clock), rates("peer", clock), strict=True)])

    machine = {k: statistics.median(m["machine"][k] for m in measured) for k in ("fp32", "bf16", "bytes", "read")}
    # Whichever takes longer: the arithmetic, or fetching what is computed with.
    moved = max(work.get(how, 0.0) / machine[how] for how in ("bytes", "read"))
    least = max(work["operations"] / machine[case.arithmetic], moved)
    limit = amounts["lalia"] / least
    inverse = case.quantity == "real-time factor"
    spent = statistics.median(rates("lalia", "cpu"))
    return Result(
        case,
        tuple(Spread.of([1 / r if inverse else r for r in rates(side, "wall")]) for side in amounts),
        ratio("wall"),
        1 / spent if inverse else spent,
        ratio("cpu"),
        1 / limit if inverse else limit,
        statistics.median(rates("lalia", "wall")) / limit,
        peak,
        measured,
    )


@dataclass(frozen=True)
class Machine:
    """Where it was measured."""

    processor: str
    cores: int
    threads: int
    load: float

    @classmethod
    def here(cls, threads: int) -> Self:
        return cls(_processor(), os.cpu_count() or 1, threads, os.getloadavg()[0])


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
