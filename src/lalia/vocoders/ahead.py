"""ConvNeXt blocks of which each sees little of the future, so that a whole stack waits for little."""

from collections.abc import Sequence

from torch import Tensor, nn

from lalia.nn.convnext import ConvNeXtBlock

__all__ = ["AheadBlocks"]


class AheadBlocks(nn.Module):
    """[B, T, D] -> [B, T, D], normalised at the end.

    :param lookahead: future steps that each block sees, one number for each block.
    """

    def __init__(self, dim: int, ffn_dim: int, lookahead: Sequence[int], *, kernel_size: int = 9) -> None:
        super().__init__()
        scale = 1 / max(len(lookahead), 1)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(dim, ffn_dim, kernel_size=kernel_size, lookahead=n, scale=scale) for n in lookahead
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.future = sum(lookahead)
        self.past = sum(kernel_size - 1 - n for n in lookahead)

    def forward(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        """
        :param there: the valid steps [B, T]; the others are silence to every block, as they would be offline.
        """
        for block in self.blocks:
            x = block(x if there is None else x * there[..., None])
        normed: Tensor = self.norm(x)
        return normed
