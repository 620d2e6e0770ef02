"""Which steps see which: the masks of attention.

Shapes: B batch, S steps that look, T steps that are looked at.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lalia.errors import ConfigError

__all__ = ["Mask", "Sight"]

Mask = Literal["causal", "prefix", "block", "pair", "full"]
"""What a step sees.

- ``causal``: itself and all before it.
- ``prefix``: that, and all of the first steps of its row, of which each row says how many (arXiv:1910.10683 §3.1.1).
- ``block``: its own block of ``block_size`` steps, and all blocks before it.
- ``pair``: itself and all pairs before its own; the two steps 2t and 2t + 1 do not see each other (NTPP,
  arXiv:2506.00975).
- ``full``: every step of its row.
"""


@dataclass(frozen=True)
class Sight:
    """What the steps of a model see.

    :param block_size: steps of a block.
    :param window: a step sees nothing that is this many steps or more before it.
    """

    mask: Mask = "causal"
    block_size: int = 1
    window: int | None = None

    @property
    def ends_late(self) -> bool:
        """Whether a step may see later ones, so that padding after the end of a row has to be hidden from it."""
        return self.mask in ("block", "full")

    def visible(self, at: Tensor, of: Tensor, *, lengths: Tensor | None = None, prefix: Tensor | None = None) -> Tensor:
        """Whether the steps at positions ``at`` see those at ``of``: [B or 1, S, T].

        :param at: [B or 1, S].
        :param of: [B or 1, T]; one below 0 is no step.
        :param lengths: [B] steps of each row; what comes after them is padding.
        :param prefix: [B] steps of each row that all steps see; with ``prefix`` only.
        """
        q, k = at[..., None], of[..., None, :]
        match self.mask:
            case "causal":
                seen = k <= q
            case "prefix":
                seen = k <= q
                if prefix is not None:
                    seen = seen | (k < prefix.to(k.device)[:, None, None])
            case "block":
                seen = k < q - q % self.block_size + self.block_size
            case "pair":
                seen = k < q - q % 2
            case "full":
                seen = torch.ones_like(k <= q)
        if self.window is not None:
            seen = seen & (k > q - self.window)
        if lengths is not None and self.ends_late:
            seen = seen & (k < lengths.to(k.device)[:, None, None])
        # Each sees itself, padding too: a step that saw nothing would be NaN, and its gradient everybody's.
        return (seen & (k >= 0)) | (k == q)

    def check_pass(self, start: Tensor, stop: Tensor, prefix: Tensor | None) -> None:
        """Refuse a pass over some steps whose own future steps are still to come.

        :param start: [B] steps of each row before the pass, and ``stop`` after it.
        :raises ConfigError: the mask looks beyond ``stop``.
        """
        match self.mask:
            case "full":
                raise ConfigError("A Transformer with the mask 'full' sees the whole input. Call it without a state.")
            case "block" if bool((start % self.block_size).any()):
                raise ConfigError(
                    f"A row goes on inside a block, after {int(start[(start % self.block_size) > 0][0])} steps. "
                    f"Give whole blocks of {self.block_size} steps at a time."
                )
            case "prefix" if prefix is not None:
                prefix = prefix.to(start.device)
                broken = (prefix > start) & ((start > 0) | (prefix > stop))
                if bool(broken.any()):
                    raise ConfigError(
                        f"A row has a prefix of {int(prefix[broken][0])} steps, but not all in its first pass. "
                        "Give the whole prefix at once."
                    )
