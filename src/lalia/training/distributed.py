"""Several processes that train one model: torchrun starts them, each sees a part of every batch.

Every rank holds the whole model, and gradients are summed over ranks once per update. There is no
``DistributedDataParallel`` wrapper on purpose: it only acts when ``forward`` of the wrapped module is
called, while objectives call whatever method of a model they need, several times, under several players.

The seam for sharding: to train what does not fit on one device, apply ``torch.distributed.fsdp.fully_shard``
to the modules before the trainer is made, and drop ``broadcast`` and ``sum_gradients`` there, because FSDP
then scatters parameters and reduces gradients (set its gradient divide factor to 1: losses are already
divided by the global count). Checkpoints would gather each ``DTensor`` with ``full_tensor()``.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = [
    "World",
    "broadcast",
    "is_main",
    "process_group",
    "rank",
    "sum_floats",
    "sum_gradients",
    "sum_over_ranks",
    "world_size",
]

BUCKET_ELEMENTS = 1 << 24
"""Tensors travel joined into buckets of at most about this many elements, to amortise latency."""


@dataclass(frozen=True)
class World:
    """Where this process stands: its rank of ``size``, its rank on this machine, and its device."""

    rank: int
    size: int
    local_rank: int
    device: torch.device


@contextmanager
def process_group(device: str | torch.device | None = None) -> Iterator[World]:
    """Join the processes that torchrun started, and leave them at the end; alone, this is a no-op.

    :param device: where this process computes; its own CUDA device for ``cuda``, and where there is one; else the
        CPU. CUDA talks over NCCL, anything else over Gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    joins = size > 1 and not dist.is_initialized()
    if joins:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank(), world_size(), local_rank, device)
    finally:
        if joins:
            dist.destroy_process_group()


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process, 0 when alone."""
    return dist.get_rank() if _active() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _active() else 1


def is_main() -> bool:
    """Whether this process is the one that writes files and talks to the user."""
    return rank() == 0


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of a tensor over all ranks; every rank gives the same shape and gets the same result.

    Also what an objective uses for statistics that are not gradients (such as running codebooks).
    """
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def sum_floats(values: Sequence[float], device: torch.device) -> list[float]:
    """The sums over all ranks of a few numbers, in double precision.

    :param device: where this process computes.
    """
    if world_size() == 1:
        return [float(value) for value in values]
    return sum_over_ranks(torch.tensor(values, dtype=torch.float64, device=device)).tolist()


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors of any type, in place, with those of rank 0."""
    if world_size() == 1:
        return
    with torch.no_grad():
        for bucket in _buckets(tensors):
            flat = torch.cat([t.detach().reshape(-1) for t in bucket])
            # As bytes, since not every backend carries every type.
            dist.broadcast(flat.view(torch.uint8), src=0)
            _spread(flat, bucket)


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its sum over ranks. Call it once per update, after the last backward pass.

    A parameter that took part on some ranks only counts as zero on the others; one that took part nowhere
    keeps no gradient, so that the optimizer leaves it alone exactly as it does in a single process.
    """
    if world_size() == 1 or not parameters:
        return
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=parameters[0].device)
    gradients = []
    for parameter, count in zip(parameters, sum_over_ranks(used).tolist(), strict=True):
        if count:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([g.reshape(-1) for g in bucket])
        dist.all_reduce(flat)
        _spread(flat, bucket)


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of tensors of one type on one device, none much longer than ``BUCKET_ELEMENTS``."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        alike = not bucket or (tensor.dtype, tensor.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (not alike or size + tensor.numel() > BUCKET_ELEMENTS):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket


def _spread(flat: Tensor, bucket: list[Tensor]) -> None:
    for tensor, part in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
        tensor.copy_(part.view_as(tensor))
