"""SUPERB: heads that s3prl trained on a model, scored by the tables that they left."""

from typing import TYPE_CHECKING, Any

from lalia.errors import DataError
from lalia.evaluation.benchmarks.as_found import as_found
from lalia.evaluation.benchmarks.base import Found
from lalia.evaluation.suites import score_superb
from lalia.evaluation.suites.superb import SuperbTask
from lalia.evaluation.suites.superb_files import TASKS, read_superb

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["SUPERB", "Superb"]


class Superb:
    """A task of SUPERB. Nothing is asked of the model: a head was trained on it and tested elsewhere (s3prl), and
    `bench.path` is the folder of what that left.
    """

    def __init__(self, task: SuperbTask) -> None:
        self.task = task
        self.name, self.about = f"superb-{task.lower()}", f"SUPERB, {task}, as s3prl left it"

    def check(self, model: Any) -> None:
        pass

    def run(self, bench: "Bench") -> Found:
        if bench.path is None or not bench.path.is_dir():
            raise DataError(f"No folder of {self.name} was named. Name what s3prl left (expdir) with --data.")
        references, predictions, more = read_superb(self.task, bench.path)
        scored = score_superb(self.task, references, predictions, **more)
        return as_found(scored, predictions, settings={"task": self.task, "results": str(bench.path)})


SUPERB = tuple(Superb(task) for task in TASKS)
