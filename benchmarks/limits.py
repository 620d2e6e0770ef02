"""What the machine can do: large matrix products and copies, measured between the other measurements."""

import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.worker import Gate

__all__ = ["count_operations", "probe"]

_SHAPE = 1024, 1024, 384
"""Rows, inputs and outputs of a matrix product that fits the cache, as the layers of small models do."""
_COPIED = 128 * 2**20
"""Bytes: several times the cache of a processor."""
_TRIES = 5


def probe(gate: Gate, _options: Mapping[str, Any]) -> dict[str, Any]:
    """The rate of a matrix product in either type (operations per second), of a copy (bytes read and written), and of
    reading alone, which is what a step of generation does with its weights.
    """
    rows, inputs, outputs = _SHAPE
    left, right = torch.randn(rows, inputs), torch.randn(inputs, outputs)
    halves = left.bfloat16(), right.bfloat16()
    operations = 2 * rows * inputs * outputs
    source = torch.ones(_COPIED, dtype=torch.uint8)
    target = torch.empty_like(source)
    numbers, words = source.view(torch.float32), source.view(torch.int64)

    def measure() -> dict[str, float]:
        return {
            "fp32": operations / _fastest(lambda: torch.mm(left, right)),
            "bf16": operations / _fastest(lambda: torch.mm(*halves)),
            "bytes": 2 * _COPIED / _fastest(lambda: target.copy_(source)),
            # Which of the two is faster is up to the processor.
            "read": _COPIED / min(_fastest(numbers.amax), _fastest(words.sum)),
        }

    measure()
    for _ in gate.rounds():
        gate.note(**measure())
    return {"torch": torch.__version__, "machine": platform.machine(), "python": platform.python_version()}


def _fastest(work: Callable[[], Any]) -> float:
    def once() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return min(once() for _ in range(_TRIES))


def count_operations(work: Callable[[], Any]) -> int:
    """Floating-point operations in the products and convolutions of a piece of work (a multiply-add is two)."""

    def attention(q: tuple[int, ...], k: tuple[int, ...], *_: Any, **__: Any) -> int:
        batch, heads, queries, dim = q
        return 4 * batch * heads * queries * k[-2] * dim

    # PyTorch counts the attention kernels of GPUs only.
    own = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=own) as counter:
        work()
    return int(counter.get_total_flops())
