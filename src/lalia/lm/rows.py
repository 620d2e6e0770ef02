"""Log-probabilities of rows that are one sequence to the backbone, without padding.

Shapes: B batch, K codebooks, T frames, S LM steps, D dim.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lalia.layouts import Grid
from lalia.lm.model import SpeechLM, log_prob_of
from lalia.nn.branches import Branches
from lalia.nn.transformer import Transformer

__all__ = ["columns_of", "log_prob_of_rows", "one_after_another", "shared_steps"]

_LEAST_SHARED = 16
"""Steps that rows must begin with alike for it to pay: what goes on from another row needs a mask."""


def one_after_another(lm: SpeechLM, steps: Sequence[int]) -> bool:
    """Whether rows of so many steps can be one sequence: on a CPU, in a Transformer that looks back alone."""
    backbone = lm.backbone
    # Of two channels, each row is several.
    if type(backbone) is not Transformer or lm.aligned or lm.start.device.type != "cpu":
        return False
    window = backbone.sight.window
    return backbone.sight.mask == "causal" and all(0 < n <= (window or n) for n in steps)


def columns_of(grid: Grid) -> list[tuple[int, ...]] | None:
    """What each step of a grid of one row holds; None where it is features, which no two rows share."""
    if any(v.is_floating_point() for v in grid.values.values()):
        return None
    cells = [torch.where(grid.present(n), v, -1)[0] for n, v in grid.values.items()]
    return list(zip(*torch.cat(cells).tolist(), strict=True))


def shared_steps(one: Sequence[tuple[int, ...]] | None, other: Sequence[tuple[int, ...]] | None) -> int:
    """How many steps of the backbone are the same in two rows, given their columns."""
    if not one or not other:
        return 0
    # The last column is predicted, and never an input; the start vector comes before the first.
    most = min(len(one), len(other)) - 1
    alike = next((i for i in range(most) if one[i] != other[i]), most) + 1
    return alike if alike >= _LEAST_SHARED else 0


@torch.inference_mode()
def log_prob_of_rows(lm: SpeechLM, grids: Sequence[Grid], shared: Sequence[int]) -> list[dict[str, Tensor]]:
    """The same as ``SpeechLM.log_prob`` of each row by itself.

    :param grids: of one row each, and of at least one step.
    :param shared: the steps that each has in common with the one before it, by ``shared_steps``.
    """
    branches = Branches(tuple(grid.num_steps for grid in grids), tuple(shared))
    # What enters at a step is the column before it; what enters first is the start.
    entering = [grid.steps(max(n, 1) - 1, grid.num_steps - 1) for grid, n in zip(grids, shared, strict=True)]
    embedded = lm.embed(_joined(entering)).to(lm.start.dtype)[0].split([grid.num_steps for grid in entering])
    own = [x if n else torch.cat([lm.start[None], x]) for x, n in zip(embedded, shared, strict=True)]
    assert isinstance(lm.backbone, Transformer)
    hidden = lm.backbone(torch.cat(own)[None], branches=branches)
    found = []
    for grid, spans in zip(grids, branches.spans(), strict=True):
        of_row = torch.cat([hidden[:, a:b] for a, b in spans], dim=1)
        found.append(log_prob_of(grid, {s: lm.head(s).nll(of_row, grid) for s in lm.heads}))
    return found


def _joined(grids: Sequence[Grid]) -> Grid:
    """The steps of several rows as those of one [1, K, S]."""
    positions = {n: torch.cat([g.positions[n] for g in grids], dim=2) for n in grids[0].positions}
    values = {
        n: torch.cat([g.values[n] for g in grids], dim=1 if v.is_floating_point() else 2)
        for n, v in grids[0].values.items()
    }
    return Grid(positions, values, torch.tensor([sum(g.num_steps for g in grids)]))
