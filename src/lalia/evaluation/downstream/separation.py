"""Source separation: scale-invariant signal-to-distortion ratio, whatever order the sources come in."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lalia.errors import DataError
from lalia.evaluation.downstream.assignment import assign
from lalia.evaluation.scored import Counts, Scored, by_id
from lalia.evaluation.statistics import mean

__all__ = ["LIMIT", "separation", "si_sdr"]

LIMIT = 100.0
"""dB, either way, beyond which float32 samples tell little more; so silence and a perfect copy are finite."""


def si_sdr(estimate: Tensor, reference: Tensor, *, zero_mean: bool = True) -> Tensor:
    """SI-SDR in dB [...] of samples [..., N] (Le Roux et al., arXiv:1811.02508, equation 5), from -100 to 100.

    :param zero_mean: whether to take out the mean of both first, as s3prl and Asteroid do.
    :raises DataError: shapes differ, a reference is silent, or samples are not finite.
    """
    if estimate.shape != reference.shape or not estimate.shape[-1:].numel():
        raise DataError(f"The estimate is {[*estimate.shape]}, the reference {[*reference.shape]}. Give equal lengths.")
    estimate, reference = estimate.double(), reference.double()
    if not (estimate.isfinite().all() and reference.isfinite().all()):
        raise DataError("There are samples that are not finite. Check the estimate.")
    if zero_mean:
        estimate, reference = (x - x.mean(-1, keepdim=True) for x in (estimate, reference))
    power = reference.square().sum(-1, keepdim=True)
    if not bool((power > 0).all()):
        raise DataError("A reference is silent: nothing can be like it. Leave it out.")
    target = (estimate * reference).sum(-1, keepdim=True) / power * reference
    noise = estimate - target
    # A silent estimate is 0 / 0: it is as far off as can be.
    ratio = 10 * torch.log10(target.square().sum(-1) / noise.square().sum(-1))
    return ratio.nan_to_num(nan=-LIMIT, posinf=LIMIT, neginf=-LIMIT).clamp(-LIMIT, LIMIT)


def separation(
    references: Mapping[str, Tensor],
    mixtures: Mapping[str, Tensor],
    estimates: Mapping[str, Tensor | None],
    *,
    zero_mean: bool = True,
    seed: int = 0,
) -> Scored:
    """SI-SDR, and SI-SDRi: how much better each source is than the mixture. In dB, mean over sources, then mixtures.

    Estimates are in the order that is best for their sum (permutation-invariant, Yu et al. 2017; found by the Hungarian
    algorithm, which is exact for any number). A mixture without estimates has failed and takes no part, for no number
    of dB would stand for it.

    :param references: [S, N] each.
    :param mixtures: [N] each.
    :param estimates: [S, N] each.
    :raises DataError: shapes differ, a reference is silent, or there is no mixture or estimate at all.
    """
    items: list[dict[str, Any]] = []
    rows = by_id(references, estimates)
    for key, reference, estimate in rows:
        if key not in mixtures:
            raise DataError(f"There is no mixture for {key!r}. Give one for each set of references.")
        if estimate is None:
            items.append({"id": key, "answered": False})
            continue
        if estimate.shape != reference.shape or mixtures[key].shape != reference.shape[-1:]:
            raise DataError(
                f"For {key!r} the references are {[*reference.shape]}, the estimates {[*estimate.shape]} and the "
                f"mixture {[*mixtures[key].shape]}. Give [S, N], [S, N] and [N]."
            )
        sources = len(reference)
        every = si_sdr(
            estimate[None].expand(sources, -1, -1), reference[:, None].expand(-1, sources, -1), zero_mean=zero_mean
        )
        pairs = assign(every.numpy())
        best = torch.stack([every[i, j] for i, j in pairs])
        before = si_sdr(mixtures[key].expand_as(reference), reference, zero_mean=zero_mean)
        items.append(
            {
                "id": key,
                "answered": True,
                "si_sdr": float(best.mean()),
                "si_sdri": float((best - before).mean()),
                "order": [j for _, j in pairs],
            }
        )
    answered = [x for x in items if x["answered"]]
    if not answered:
        raise DataError("There are no estimates. Give those of at least one mixture.")
    return Scored(
        figures={name: mean([x[name] for x in answered], seed=seed) for name in ("si_sdri", "si_sdr")},
        counts=Counts(len(rows), len(answered), failed=len(rows) - len(answered)),
        items=items,
        settings={"zero_mean": zero_mean, "limit": LIMIT},
    )
