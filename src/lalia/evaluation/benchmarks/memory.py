"""How much memory a process takes that loads the model and answers."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lalia.errors import ConfigError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.statistics import Estimate

__all__ = ["Memory", "peak_of", "resident"]

_PROCESSES = 3
_PROGRAM = """
import resource, sys
from lalia.cli import main
status = main(sys.argv[1:])
try:
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(f"{status} {peak}", file=sys.stderr)
"""
"""The kernel's mark of this program alone: that of getrusage begins with what the parent had."""


def peak_of(arguments: Sequence[str]) -> int:
    """The peak of resident memory, in bytes, of a new process that runs a command of lalia.

    :raises ConfigError: the command fails; the message has its own.
    """
    ran = subprocess.run([sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=False)
    *said, last = ran.stderr.strip().splitlines() or [""]
    status, _, peak = last.partition(" ")
    if ran.returncode or status != "0" or not peak.isdigit():
        reason = (said or [last])[-1].removeprefix("error: ").rstrip(".")
        raise ConfigError(f"lalia {arguments[0]} fails in a process of its own ({reason}). Try it by hand.")
    return int(peak)


def resident() -> float:
    """Memory of this process, in MB of 10^6 bytes; NaN where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return float("nan")
    import resource

    return pages * resource.getpagesize() / 1e6


class Memory:
    """Peak of resident memory of ``lalia chat`` on a bundled question: the program, the model, one answer.

    The figure is the highest of a few processes, each with another question; the interval is their range. Nothing is
    kept: it is measured anew each time.
    """

    name = "memory"
    about = "peak memory of one answer"
    at_work = True

    def check(self, model: Any) -> None:
        model.dialogue(speak=False)

    def run(self, bench: Bench) -> Found:
        items: list[dict[str, Any]] = []
        asked = questions(bench.limit)[:: max(len(questions(bench.limit)) // _PROCESSES, 1)][:_PROCESSES]
        with tempfile.TemporaryDirectory() as folder:
            for i, question in enumerate(asked):
                words = ["chat", str(question.utterance.path), "--model", bench.source, "-o", f"{folder}/reply.wav"]
                items.append({"id": question.id, "peak_bytes": peak_of([*words, *bench.options])})
                bench.progress("answering in a new process", i + 1, len(asked))
        peaks = np.array([x["peak_bytes"] for x in items]) / 1e6
        estimate = Estimate(float(peaks.max()), float(peaks.min()), float(peaks.max()), len(peaks))
        return Found([Figure("peak", "peak of resident memory", "MB", estimate)], items, {"options": [*bench.options]})
