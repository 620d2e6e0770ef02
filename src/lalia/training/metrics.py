"""What a run says about itself: means over a window, ``metrics.jsonl``, the console and TensorBoard."""

import json
import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lalia.errors import MissingDependency
from lalia.files import atomic_write

__all__ = ["Reporter", "Window", "measure"]


def measure(batch: Any, name: str) -> float:
    """A number that a batch carries as a key or an attribute (``seconds`` of speech, ``tokens``), or 0."""
    value = batch.get(name) if isinstance(batch, Mapping) else getattr(batch, name, None)
    return 0.0 if value is None else float(value)


class Window:
    """Sums over the steps since the last report; all are over every rank.

    Loss sums and counts are part of a checkpoint, so that a resumed run reports what an uninterrupted one does.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, float] = {}
        self.tokens = self.seconds = self.wall = 0.0

    def add(self, sums: Mapping[str, float], counts: Mapping[str, float]) -> None:
        """One step: the sum of each loss term and what it is divided by."""
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0.0) + counts[name]

    def add_work(self, *, tokens: float, seconds: float, wall: float) -> None:
        """One step: its tokens, its seconds of speech, and the seconds that it took."""
        self.tokens += tokens
        self.seconds += seconds
        self.wall += wall

    def means(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Each term per count, and ``loss``, their weighted sum; empty where nothing was counted."""
        terms = {name: self.sums[name] / count for name, count in sorted(self.counts.items()) if count}
        return {"loss": sum(weights[name] * value for name, value in terms.items()), **terms} if terms else {}

    def rates(self) -> dict[str, float]:
        """Tokens per second, and hours of speech per second where the batches know their length."""
        if not self.wall:
            return {}
        rates = {"tokens_per_second": self.tokens / self.wall}
        if self.seconds:
            rates["speech_hours_per_second"] = self.seconds / 3600 / self.wall
        return rates

    def state_dict(self) -> dict[str, dict[str, float]]:
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Mapping[str, float]]) -> None:
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])


class Reporter:
    """Writes metrics wherever they can be seen; a context manager.

    ``metrics.jsonl`` has one object per report, with ``step`` and ``split``. The console is standard error,
    with a progress bar on a terminal and plain lines otherwise.

    :param step: where the run starts; what was reported after it (before a kill) is removed.
    :param enabled: false on all ranks but one.
    """

    def __init__(self, run: Path, step: int, max_steps: int, *, tensorboard: bool = True, enabled: bool = True) -> None:
        self.enabled = enabled
        self.step = step
        self.max_steps = max_steps
        self._path = run / "metrics.jsonl"
        self._tensorboard = _summary_writer(run, step) if enabled and tensorboard else None
        self._console = Console(stderr=True, quiet=not enabled, highlight=False)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._started = time.monotonic()
        if enabled:
            _truncate(self._path, step)

    def __enter__(self) -> Self:
        if self.enabled and self._console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._progress = Progress(*columns, console=self._console)
            self._task = self._progress.add_task("", total=self.max_steps, completed=self.step)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def note(self, text: str) -> None:
        """A line for the reader."""
        self._console.print(text, markup=False, soft_wrap=True)

    def advance(self, step: int) -> None:
        """Move the progress bar."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=step)

    def report(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Metrics of a step; ``split`` is ``train`` or ``validation``."""
        if not self.enabled:
            return
        row = {"step": step, "split": split, "elapsed": round(time.monotonic() - self._started, 3), **values}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({k: v if _writable(v) else None for k, v in row.items()}) + "\n")
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(f"{split}/{name}", value, step)
        text = "  ".join(_format(name, value) for name, value in values.items())
        if self._progress is not None and self._task is not None and split == "train":
            self._progress.update(self._task, description=text)
        else:
            self.note(f"step {step}/{self.max_steps}  {'' if split == 'train' else split + '  '}{text}")


def _writable(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _format(name: str, value: float) -> str:
    match name:
        case "tokens_per_second":
            return f"{value:,.0f} tokens/s"
        case "speech_hours_per_second":
            return f"{value:.4f} speech-hours/s"
        case _ if name.startswith("learning_rate"):
            return f"{name.replace('learning_rate', 'lr')} {value:.2e}"
    return f"{name} {value:.4g}"


def _truncate(path: Path, step: int) -> None:
    """Keep the reports up to ``step``; the last line may have been cut short by a kill."""
    kept = []
    if step and path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue
    with atomic_write(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _summary_writer(run: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warnings.warn(str(MissingDependency("tensorboard", "train")), stacklevel=3)
        return None
    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1 if step else None)
