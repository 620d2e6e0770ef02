"""Tokens per second of a training loop: lalia's Trainer beside transformers' Trainer.

The same weights, batches, optimizer (fused AdamW), clipping and precision; neither logs nor saves while it is
measured. Only tokens that are predicted count, not padding.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.llama import (
    END,
    check_of_lalia,
    check_of_llama,
    lalia_lm,
    least_work,
    llama,
    random_units,
)
from benchmarks.worker import Gate
from lalia.data import BatchPlan
from lalia.streams import TokenSequence, pad_batch
from lalia.training import Trainer
from lalia.training.objectives.next_token import NextToken

__all__ = ["lalia", "peer"]

_WARM_UP = 2
_NEVER = 10**9
_RATE = 35
"""Tokens per second of mini-gslm's units without repeats."""

# fmt: off
_SECONDS = (
    1.65, 2.67, 3.07, 3.63, 4.21, 4.58, 5.25, 5.72, 6.76, 7.69, 8.27, 9.04, 9.72, 10.34, 10.93, 11.26, 11.3, 11.87,
    11.95, 12.05, 12.26, 12.46, 12.69, 12.77, 12.84, 12.96, 13.01, 13.14, 13.25, 13.39, 13.47, 13.61, 13.71, 13.78,
    13.94, 14.0, 14.09, 14.12, 14.16, 14.21, 14.21, 14.28, 14.31, 14.38, 14.43, 14.51, 14.55, 14.56, 14.6, 14.7, 14.71,
    14.77, 14.83, 14.89, 14.92, 14.97, 15.02, 15.14, 15.22, 15.28, 15.29, 15.34, 15.4, 15.47, 15.48, 15.52, 15.63,
    15.69, 15.73, 15.81, 15.94, 15.98, 16.07, 16.19, 16.41, 16.47, 16.64, 16.79, 17.19,
)
"""How long utterances of LibriSpeech are: quantiles of 251, one of each speaker."""
# fmt: on


def _batches(options: Mapping[str, Any]) -> list[list[Tensor]]:
    """The units of every row of every batch of a round, ends not included."""
    most = options["max_tokens"]
    if options["lengths"] == "fixed":
        lengths = [[511] * (most // 512)] * options["batches"]
    else:
        # The bucketing that lalia trains with, for both.
        plan = BatchPlan([round(_RATE * s) for s in _SECONDS], most, seed=0)
        lengths = [[row.stop - row.start for row in batch.rows] for batch in plan.epoch(0)[: options["batches"]]]
    return [[random_units(n, seed=97 * b + r) for r, n in enumerate(rows)] for b, rows in enumerate(lengths)]


def _count(batches: Sequence[Sequence[Tensor]]) -> int:
    return sum(len(row) + 1 for rows in batches for row in rows)


def lalia(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """lalia's side."""
    lm = lalia_lm()
    units = _batches(options)
    made = []
    for rows in units:
        tokens = pad_batch([TokenSequence(row[None, None], torch.tensor([len(row)])) for row in rows])
        made.append({"grid": lm.pack({"units": tokens}), "tokens": _count([rows])})
    facts = {"amount": _count(units), "check": check_of_lalia(lm)}
    rounds = options["rounds"]
    with tempfile.TemporaryDirectory() as folder:
        config = Trainer.Config(
            # One more step, before which the last round is answered for.
            _WARM_UP + rounds * len(made) + 1,
            precision=options["precision"],
            tensorboard=False,
            log_every=_NEVER,
            save_every=_NEVER,
        )
        Trainer(config, NextToken(lm), _Gated(gate, made, facts), folder).fit()
    # Backward costs twice what forward does. Each token sees those before it: half of the row on average.
    return {"operations": 3 * sum(least_work(len(row) + 1, (len(row) + 1) / 2) for rows in units for row in rows)}


class _Gated:
    """Batches in rounds; see ``lalia.training.Batches``."""

    def __init__(self, gate: Gate, made: Sequence[Any], facts: Mapping[str, float]) -> None:
        self.gate, self.made, self.facts = gate, made, facts

    def __iter__(self) -> Iterator[list[Any]]:
        for i in range(_WARM_UP):
            yield [self.made[i % len(self.made)]]
        for _ in self.gate.rounds(**self.facts):
            for batch in self.made:
                yield [batch]
        yield [self.made[0]]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        raise AssertionError("a benchmark is not resumed")


def peer(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """The side of transformers."""
    from transformers import Trainer as HFTrainer
    from transformers import TrainerCallback, TrainingArguments

    model = llama()
    units = _batches(options)
    made = [_collate(rows) for rows in units]
    facts = {"amount": _count(units), "check": check_of_llama(model)}
    steps = _WARM_UP + options["rounds"] * len(made)

    class Gated(TrainerCallback):
        """Waits after the warm-up and after every round."""

        def __init__(self) -> None:
            self.rounds = gate.rounds(**facts)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step >= _WARM_UP and (state.global_step - _WARM_UP) % len(made) == 0:
                next(self.rounds, None)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            # The batches are made already; its loader hands them over one by one.
            per_device_train_batch_size=1,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            bf16=options["precision"] == "bf16",
            use_cpu=True,
            learning_rate=3e-4,
            adam_beta1=0.9,
            adam_beta2=0.95,
            weight_decay=0.01,
            max_grad_norm=1.0,
            lr_scheduler_type="cosine",
            optim="adamw_torch_fused",
            logging_strategy="no",
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        order = [made[i % len(made)] for i in range(_WARM_UP)] + made * options["rounds"]
        trainer = HFTrainer(
            model=model,
            args=arguments,
            train_dataset=order,
            data_collator=lambda batch: batch[0],
            callbacks=[Gated()],
        )
        trainer.train()
    return {}


def _collate(rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """A batch for Llama: what its own collator for language models gives, but for the labels.

    These are shifted already, so that the last position, which predicts nothing, is not computed.
    """
    most = max(len(row) for row in rows) + 1
    inputs = torch.stack([F.pad(F.pad(row, (1, 0), value=END), (0, most - 1 - len(row)), value=END) for row in rows])
    ends = torch.stack([F.pad(F.pad(row, (0, 1), value=END), (0, most - 1 - len(row)), value=-100) for row in rows])
    return {"input_ids": inputs, "attention_mask": (ends >= 0).long(), "labels": ends, "shift_labels": ends}
