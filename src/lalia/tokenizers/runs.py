"""Runs of equal units: closing them as a stream comes, their durations as a stream, and features averaged over them.

With these, deduplicated units, their durations and their pitch are three parallel streams of one step per unit, as in
pGSLM (arXiv:2109.03264 §2.1).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lalia.errors import LayoutError
from lalia.streaming import State
from lalia.streams import TokenSequence, pad_batch, valid_steps

__all__ = ["OpenRun", "durations_of", "frames_of", "pool_by_runs"]


@dataclass
class OpenRun(State):
    """For each row the run that is still going: its code [B] (-1: none) and its frames [B]."""

    code: Tensor
    frames: Tensor

    @classmethod
    def empty(cls, batch_size: int) -> "OpenRun":
        """Before the first code."""
        return cls(torch.full((batch_size,), -1), torch.zeros(batch_size, dtype=torch.long))

    def add(self, codes: Tensor, row: int, *, final: bool) -> TokenSequence:
        """The runs that are over, now that these codes [t] of a row came; the last may go on, and is held back."""
        codes, counts = torch.unique_consecutive(codes, return_counts=True)
        if int(self.code[row]) >= 0:
            if len(codes) and int(codes[0]) == int(self.code[row]):
                counts[0] += self.frames[row]
            else:
                codes = torch.cat([self.code[row : row + 1], codes])
                counts = torch.cat([self.frames[row : row + 1], counts])
        self.code[row], self.frames[row] = -1, 0
        if not final and len(codes):
            self.code[row], self.frames[row] = codes[-1], counts[-1]
            codes, counts = codes[:-1], counts[:-1]
        return TokenSequence(codes[None, None], torch.tensor([len(codes)]), counts[None])


def durations_of(units: TokenSequence, bins: int | None = None) -> TokenSequence:
    """How long each unit lasts, as a stream of one step per unit.

    :param units: deduplicated, or as they come; then their runs are taken.
    :param bins: codes, 0 for one frame up to ``bins - 1`` for ``bins`` frames and more (pGSLM: 32).
        The natural logarithm of the frames when None.
    :returns: codes [B, 1, T] or features [B, T, 1].
    """
    units = units.deduplicate()
    frames = units.durations
    assert frames is not None
    there = valid_steps(units.lengths, units.num_tokens)
    frames = torch.where(there, frames, 1)
    if bins is None:
        return TokenSequence(frames.float().log()[..., None], units.lengths)
    return TokenSequence((frames.clamp(max=bins) - 1)[:, None], units.lengths)


def frames_of(durations: TokenSequence) -> Tensor:
    """The inverse of ``durations_of``: whole frames [B, T], at least one each and zero behind a row's end."""
    if durations.discrete:
        frames = durations.values[:, 0] + 1
    else:
        frames = durations.values[..., 0].exp().round().long().clamp(min=1)
    there = valid_steps(durations.lengths.to(frames.device), durations.num_tokens)
    return frames * there


def pool_by_runs(
    features: TokenSequence, units: TokenSequence, how: Literal["mean", "first"] = "mean"
) -> TokenSequence:
    """Features of one step per run of units.

    :param features: [B, T, D], one per frame of the units.
    :param units: deduplicated, or as they come; then their runs are taken.
    :param how: the mean over the frames of a run, or its first frame.
    :returns: [B, S, D], S runs.
    :raises LayoutError: the features are codes, or are not as many as the units have frames. One frame too many or too
        few is forgiven: tokenizers differ in what they make of the end.
    """
    if features.discrete or len(features) != len(units):
        what = "codes" if features.discrete else f"{len(features)} rows"
        raise LayoutError(f"{what} cannot be averaged over {len(units)} rows of units. Give features, a row for each.")
    units = units.deduplicate()
    rows = []
    for b in range(len(units)):
        x, run = features.row(b).values[0], units.row(b).durations
        assert run is not None
        counts = run[0].to(x.device)
        total = int(counts.sum())
        if abs(total - len(x)) > 1 or (total and not len(x)):
            raise LayoutError(
                f"Row {b} has {len(x)} frames of features, but its units last {total}. "
                "Tokenize both from the same audio at one frame rate."
            )
        if total > len(x):
            x = torch.cat([x, x[-1:]])
        starts = counts.cumsum(0) - counts
        match how:
            case "first":
                pooled = x[starts]
            case "mean":
                # In double precision: a difference of sums over an hour would lose what a short run has.
                sums = torch.cat([x.new_zeros(1, x.shape[1], dtype=torch.float64), x[:total].double().cumsum(0)])
                pooled = ((sums[starts + counts] - sums[starts]) / counts[:, None]).to(x.dtype)
        rows.append(TokenSequence(pooled[None], torch.tensor([len(counts)])))
    return pad_batch(rows)
