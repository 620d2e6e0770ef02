"""A fresh process for one side of one case: it prepares, says that it is ready, and then works when told to.

``python -m benchmarks.worker JOB`` is started by ``benchmarks.measure``. Commands come as lines on standard
input (``go``, ``end``), answers go out as JSON lines. Only the main process decides when a side works, so
that the two sides never compete for the cores.
"""

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Gate", "main"]


class Gate:
    """Where a side waits for its turn."""

    def __init__(self, answers: int) -> None:
        """
        :param answers: the file descriptor for what this side has to say.
        """
        self._answers = answers
        self._notes: dict[str, Any] = {}

    def rounds(self, **facts: Any) -> Iterator[int]:
        """Yield once per round that is to be worked; the time until the next is asked for is what is measured.

        :param facts: what is known before the first round: ``amount`` of work in a round, in seconds of sound
            or tokens, and ``check``, a number that both sides must agree on.
        """
        self.say(**facts)
        number = 0
        while sys.stdin.readline().strip() == "go":
            wall, cpu = time.perf_counter(), time.process_time()
            yield number
            self.say(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu, **self._notes)
            number += 1
        self._notes = {}
        # What follows (a checkpoint, counting operations) is not the work.
        self.say(peak=peak_bytes())

    def note(self, **values: Any) -> None:
        """Add numbers to the answer for the round that is going on."""
        self._notes = values

    def say(self, **values: Any) -> None:
        """One answer."""
        os.write(self._answers, (json.dumps(values) + "\n").encode())


def peak_bytes() -> int:
    """The most memory that this process had at once (resident)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Do the job named on the command line."""
    job: Mapping[str, Any] = json.loads(sys.argv[1])
    # Whatever a library prints must not end up among the answers.
    answers = os.dup(1)
    os.dup2(2, 1)

    import torch

    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    gate = Gate(answers)
    side = getattr(importlib.import_module(f"benchmarks.{job['module']}"), job["side"])
    gate.say(last=side(gate, job["options"]))


if __name__ == "__main__":
    main()
