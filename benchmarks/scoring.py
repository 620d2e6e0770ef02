"""Tokens per second of likelihoods: lalia's beside LlamaForCausalLM, on the same weights and the same recordings.

The peer does what scripts of slamkit and ZeroSpeech do with a model of transformers: batches in the order of the files,
padded to the longest, the softmax of all positions, and the log-probability of each token out of it.

Both compute in float32, and four fifths of the time are products with the weights, at the speed of the processor. Of a
batch the peer computes the padding too, which lalia has not, and a prompt as often as it occurs. One recording at a
time has neither: there the peer alone reaches half of the machine's limit, and twice as fast would be at or beyond it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.llama import END, check_of_lalia, check_of_llama, lalia_lm, least_work, llama, random_units
from benchmarks.worker import Gate
from lalia.model.scoring import score_rows
from lalia.streams import TokenSequence, pad_batch

__all__ = ["lalia", "peer"]


def _recordings(options: Mapping[str, Any]) -> list[Tensor]:
    """Units of recordings of one to eight seconds; in ``pairs``, two after another begin with the same three quarters,
    as two endings of a story do for tokenizers that hear nothing of what is still to come.
    """
    lengths = torch.randint(30, 300, (options["recordings"],), generator=torch.Generator().manual_seed(0)).tolist()
    if options.get("pairs"):
        lengths = [n for n in lengths[::2] for _ in range(2)]
    found = [random_units(n, seed=i) for i, n in enumerate(lengths)]
    for positive, negative in zip(found[::2], found[1::2], strict=True) if options.get("pairs") else ():
        negative[: _shared(positive)] = positive[: _shared(positive)]
    return found


def _shared(units: Tensor) -> int:
    """The units of a recording of a pair that the other has too."""
    return 3 * len(units) // 4


def lalia(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """lalia's side."""
    lm = lalia_lm().eval()
    rows = [{"units": TokenSequence(u[None, None], torch.tensor([len(u)]))} for u in _recordings(options)]
    amount = sum(int(r["units"].lengths[0]) for r in rows)

    def work() -> float:
        found = []
        for i in range(0, len(rows), options["batch"]):
            found += score_rows(lm, rows[i : i + options["batch"]], specs=lm.specs)
        return sum(one.sum for one in found)

    work()
    for _ in gate.rounds(amount=amount, check=check_of_lalia(lm)):
        work()
    operations = 0
    for i, u in enumerate(_recordings(options)):
        known = _shared(u) if options.get("pairs") and i % 2 else 0
        operations += least_work(len(u) - known, (len(u) + known) / 2)
    return {"operations": operations, "bytes": 0}


@torch.inference_mode()
def peer(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """The side of transformers."""
    model = llama().eval()
    rows = _recordings(options)

    def work() -> float:
        total = 0.0
        for i in range(0, len(rows), options["batch"]):
            part = rows[i : i + options["batch"]]
            padded = pad_batch([TokenSequence(u[None, None], torch.tensor([len(u)])) for u in part])
            ids = torch.nn.functional.pad(padded.values[:, 0], (1, 0), value=END)
            mask = torch.arange(ids.shape[1]) <= padded.lengths[:, None]
            logits = model(input_ids=ids, attention_mask=mask.long()).logits[:, :-1].log_softmax(-1)
            told = logits.gather(-1, ids[:, 1:, None])[..., 0]
            total += float((told * mask[:, 1:]).double().sum())
        return total

    work()
    for _ in gate.rounds(amount=sum(map(len, rows)), check=check_of_llama(model)):
        work()
    return {}
