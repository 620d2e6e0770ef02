"""The recipe mini at the smallest size, with random weights that say much."""

import torch

from lalia.model import Model
from lalia.recipes import find


def tiny_mini() -> Model:
    """The same each time."""
    torch.manual_seed(0)
    made = Model(find("mini").tiny())
    for name, p in made.module.named_parameters():
        # Far from uniform, so that nothing hangs on rounding, and no reply that ends at once.
        if p.ndim > 1 and "vocoder" in name:
            torch.nn.init.normal_(p, std=0.3)
        elif p.ndim > 1:
            p.data *= 8
    return made
