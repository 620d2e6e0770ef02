"""Tokens per second of sampling: lalia's SpeechLM.generate beside transformers' generate, on the same weights.

Ragged rows have prompts of different lengths and end at one total length, so each makes another number of tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.llama import (
    END,
    check_of_lalia,
    check_of_llama,
    lalia_lm,
    least_bytes,
    least_work,
    llama,
    random_units,
)
from benchmarks.worker import Gate
from lalia.lm import Sampler, Sampling, collect
from lalia.streams import TokenSequence, pad_batch

__all__ = ["lalia", "peer"]

_TEMPERATURE, _TOP_P = 0.8, 0.95


def _prompts(options: Mapping[str, Any]) -> list[Tensor]:
    """The units that are there before, of every row; their lengths are spread evenly where rows are ragged."""
    rows, prompt, new = options["rows"], options["prompt"], options["new"]
    more = [round(b * (new - 10) / (rows - 1)) if options["ragged"] else 0 for b in range(rows)]
    return [random_units(prompt + m, seed=b) for b, m in enumerate(more)]


def _new(options: Mapping[str, Any]) -> list[int]:
    """How many tokens each row makes."""
    total = options["prompt"] + options["new"]
    return [total - len(p) for p in _prompts(options)]


def lalia(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """lalia's side."""
    lm = lalia_lm().eval()
    known = {"units": pad_batch([TokenSequence(p[None, None], torch.tensor([len(p)])) for p in _prompts(options)])}
    sampler = Sampler(Sampling(temperature=_TEMPERATURE, top_p=_TOP_P)).ban(units=((END, END + 1),))
    new = _new(options)

    def work() -> None:
        limits = {"units": options["prompt"] + options["new"]}
        made = collect(lm.generate(known, sampler=sampler, limits=limits))["units"]
        assert made.lengths.tolist() == new, made.lengths

    work()
    for _ in gate.rounds(amount=sum(new), check=check_of_lalia(lm)):
        work()
    operations, moved = 0, 0
    for step in range(options["new"]):
        lengths = [len(p) + step for p, n in zip(_prompts(options), new, strict=True) if step < n]
        operations += sum(least_work(1, length) for length in lengths)
        moved += least_bytes(sum(lengths))
    operations += sum(least_work(len(p), len(p) / 2) for p in _prompts(options))
    return {"operations": operations, "bytes": moved}


def peer(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """The side of transformers."""
    from transformers import GenerationConfig, StoppingCriteria

    model = llama().eval()
    prompts, new = _prompts(options), _new(options)
    longest = max(map(len, prompts))
    ids = torch.stack([F.pad(F.pad(p, (1, 0), value=END), (longest - len(p), 0), value=0) for p in prompts])
    mask = torch.stack([F.pad(torch.ones(len(p) + 1).long(), (longest - len(p), 0)) for p in prompts])
    config = GenerationConfig(
        do_sample=True,
        temperature=_TEMPERATURE,
        top_p=_TOP_P,
        top_k=0,
        max_new_tokens=max(new),
        bos_token_id=END,
        eos_token_id=None,
        pad_token_id=0,
    )

    class Enough(StoppingCriteria):
        """Each row ends when it has its tokens."""

        def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
            return input_ids.shape[1] - ids.shape[1] >= torch.tensor(new)

    more = {"stopping_criteria": [Enough()]} if options["ragged"] else {}

    def work() -> None:
        with torch.inference_mode():
            made = model.generate(ids, attention_mask=mask, generation_config=config, **more)
        assert made.shape == (len(prompts), ids.shape[1] + max(new)), made.shape

    work()
    for _ in gate.rounds(amount=sum(new), check=check_of_llama(model)):
        work()
    return {}
