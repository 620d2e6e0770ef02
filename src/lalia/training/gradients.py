"""Losses and gradients of one global batch, however it is split over micro-batches and processes.

The counts of all terms are summed over all micro-batches and ranks before the first forward pass. Each
micro-batch then back-propagates ``sum(weight * loss_sum / global_count)``, and gradients are *summed* over
ranks. A mean of means would weigh short micro-batches too much; this is the mean over the global batch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from lalia.errors import ConfigError
from lalia.training.distributed import sum_floats, sum_gradients
from lalia.training.optimizer import Player
from lalia.training.protocols import Objective
from lalia.training.runtime import to_device

__all__ = ["Autocast", "add_up", "backward", "mean_losses", "total_counts"]

Autocast = Callable[[], AbstractContextManager[Any]]
"""Makes the context in which losses are computed."""


def total_counts(objective: Objective, batches: Sequence[Any], device: torch.device) -> dict[str, float]:
    """What each term of the objective is divided by: its count over all micro-batches of all ranks."""
    terms = sorted(objective.weights)
    local: dict[str, float] = {}
    for batch in batches:
        add_up(local, objective.counts(batch))
    _check_known(local, terms)
    return dict(zip(terms, sum_floats([local.get(term, 0.0) for term in terms], device), strict=True))


def backward(
    objective: Objective,
    player: Player,
    batches: Sequence[Any],
    counts: Mapping[str, float],
    autocast: Autocast,
    max_grad_norm: float | None,
) -> tuple[dict[str, float], float]:
    """Leave the clipped gradients of the global batch on a player's parameters.

    :return: the sum of each of its loss terms, and the norm of its gradients before clipping, over all ranks.
    """
    player.optimizer.zero_grad()
    sums: dict[str, Tensor] = {}
    for batch in batches:
        with autocast():
            losses = objective.losses(player.name, batch)
        _check_known(losses, objective.weights)
        factors = {name: objective.weights[name] / counts[name] for name in losses if counts[name]}
        terms = [losses[name].float() * factor for name, factor in factors.items() if factor]
        total = torch.stack(terms).sum() if terms else None
        if total is not None and total.requires_grad:
            total.backward()
        add_up(sums, {name: loss.detach().float() for name, loss in losses.items()})
    parameters = list(player.parameters.values())
    sum_gradients(parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if max_grad_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, norm)
    # Here alone the device is waited for: whether the update is made depends on these numbers.
    device = parameters[0].device
    *values, total_norm = torch.stack([*sums.values(), norm.float().to(device)]).tolist()
    return _over_ranks(objective, dict(zip(sums, values, strict=True)), device), total_norm


def mean_losses(
    objective: Objective, batches: Iterable[Any], device: torch.device, autocast: Autocast
) -> dict[str, float]:
    """The mean of every term over all batches of all ranks, and ``loss``, their weighted sum."""
    counts: dict[str, float] = {}
    sums: dict[str, Tensor] = {}
    for batch in batches:
        add_up(counts, objective.counts(batch))
        moved = to_device(batch, device)
        for player in objective.players:
            with autocast():
                losses = objective.losses(player, moved)
            add_up(sums, {name: loss.detach().double() for name, loss in losses.items()})
    _check_known({**counts, **sums}, objective.weights)
    counts = _over_ranks(objective, counts, device)
    totals = _over_ranks(objective, {name: float(value) for name, value in sums.items()}, device)
    means = {name: total / counts[name] for name, total in totals.items() if counts.get(name)}
    return {"loss": sum(objective.weights[name] * mean for name, mean in means.items()), **means} if means else {}


def _over_ranks(objective: Objective, sums: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """The sum over ranks of each term that any rank has; a rank without a batch has none."""
    terms = sorted(objective.weights)
    local = [sums.get(term, 0.0) for term in terms] + [float(term in sums) for term in terms]
    both = sum_floats(local, device)
    return {term: value for term, value, ranks in zip(terms, both, both[len(terms) :], strict=False) if ranks}


def add_up(totals: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Add named values to named totals, in place."""
    for name, value in values.items():
        totals[name] = totals[name] + value if name in totals else value


def _check_known(terms: Iterable[str], known: Iterable[str]) -> None:
    for name in sorted(set(terms) - set(known)):
        raise ConfigError(
            f"The objective has a term {name!r}, but its weights name {', '.join(sorted(known)) or 'none'}. "
            "Give it a weight (0 measures without training)."
        )
