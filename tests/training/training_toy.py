"""A small recurrent language model on synthetic sequences of many lengths; also a program that trains it.

``python training_toy.py RUN JSON`` trains in RUN (resuming what is there) with the given settings; under torchrun
it trains with all processes. ``{"die_at": [PLACE, STEP]}`` sends it SIGKILL at that step: in the forward pass
(``losses``), or while it writes the checkpoint (``checkpoint``).
"""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lalia.training import Trainer, checkpoint
from lalia.training.distributed import process_group, rank, world_size

VOCABULARY = 11


class Model(nn.Module):
    """Embedding, GRU, batch statistics, norm, dropout and a branch that not every batch uses."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 12)
        self.rnn = nn.GRU(12, 16, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(16, VOCABULARY)
        self.rare = nn.Linear(16, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            self.seen += 1
        hidden = self.dropout(self.norm(self.rnn(self.embed(codes))[0]))
        return self.out(hidden), self.rare(hidden)


class NextToken:
    """Cross-entropy of the next code, and a regression of its length for the rows that ask for it."""

    players = ("model",)

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.step = 0
        self.weights = {"next": 1.0, "length": 0.5}

    def modules(self, player: str) -> list[nn.Module]:
        return [self.model]

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        counts = {"next": float((batch["lengths"] - 1).sum())}
        return counts | ({"length": float(batch["rare"].sum())} if batch["rare"].any() else {})

    def losses(self, player: str, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        codes, lengths = batch["codes"], batch["lengths"]
        logits, rare = self.model(codes[:, :-1])
        valid = torch.arange(codes.shape[1] - 1)[None] < (lengths - 1)[:, None]
        losses = {"next": nn.functional.cross_entropy(logits[valid], codes[:, 1:][valid], reduction="sum")}
        if batch["rare"].any():
            losses["length"] = (rare[:, 0, 0] - lengths / 20)[batch["rare"]].square().sum()
        return losses


class Sequences:
    """Global batches of ``rows`` rows, dealt to the ranks and cut into micro-batches; epochs of 7 batches."""

    def __init__(self, rows: int = 8, micro_batches: int = 1, seed: int = 0) -> None:
        self.rows, self.micro_batches, self.seed = rows, micro_batches, seed
        self.position = 0

    def __iter__(self) -> Iterator[list[Any]]:
        while True:
            batch = self.batch(self.position)
            self.position += 1
            yield batch
            if self.position % 7 == 0:
                return

    def batch(self, position: int) -> list[dict[str, Any]]:
        num_rows = 1 if position % 5 == 4 else self.rows
        chance = torch.Generator().manual_seed(self.seed * 1_000_003 + position)
        lengths = torch.randint(3, 20, (num_rows,), generator=chance)
        start = torch.randint(VOCABULARY, (num_rows, 1), generator=chance)
        noise = torch.randint(2, (num_rows, 20), generator=chance)
        codes = (start + torch.arange(20)[None] * 3 + noise) % VOCABULARY
        # In every third batch two rows have a length to predict: other micro-batches and ranks do not use that branch.
        rare = (torch.arange(num_rows) < 2) & (position % 3 == 1)
        groups = world_size() * self.micro_batches
        batch = []
        for group in range(rank() * self.micro_batches, (rank() + 1) * self.micro_batches):
            rows = slice(group * num_rows // groups, (group + 1) * num_rows // groups)
            if rows.start < rows.stop:
                longest = int(lengths[rows].max())
                part = {"codes": codes[rows, :longest], "lengths": lengths[rows], "rare": rare[rows], "seconds": 0.5}
                batch.append(part)
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.position = state["position"]


def held_out() -> list[dict[str, Any]]:
    """This rank's held-out micro-batches."""
    source = Sequences(seed=1)
    return [batch for position in (1, 2) for batch in source.batch(position)]


def make(run: Path, *, rows: int = 8, micro_batches: int = 1, dropout: float = 0.0, **settings: Any) -> Trainer:
    torch.manual_seed(3 + rank())  # the trainer must begin from the parameters of rank 0
    defaults = {"max_steps": 12, "learning_rate": 0.01, "warmup_steps": 3, "log_every": 1, "tensorboard": False}
    config = Trainer.Config(**{**defaults, **settings})
    return Trainer(config, NextToken(Model(dropout)), Sequences(rows, micro_batches), run, validation=held_out())


def reports(run: Path, split: str = "train") -> list[dict[str, Any]]:
    """What ``metrics.jsonl`` says, without the split and what depends on the clock."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    clocks = ("split", "elapsed", "tokens_per_second", "speech_hours_per_second")
    return [{k: v for k, v in row.items() if k not in clocks} for row in rows if row["split"] == split]


def die_at(trainer: Trainer, place: str, step: int) -> None:
    """Let this process kill itself in the middle of its work."""

    def guarded(work: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            result = work(*args, **kwargs)
            if trainer.progress.step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapper

    match place:
        case "losses":
            trainer.objective.losses = guarded(trainer.objective.losses)  # type: ignore[method-assign]
        case "checkpoint":
            checkpoint.save_file = guarded(checkpoint.save_file)


def main() -> None:
    torch.set_num_threads(1)
    settings = json.loads(sys.argv[2])
    place = settings.pop("die_at", None)
    with process_group():
        trainer = make(Path(sys.argv[1]), **settings)
        if place is not None:
            die_at(trainer, *place)
        trainer.fit(resume=True)


if __name__ == "__main__":
    main()
