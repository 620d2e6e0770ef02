"""Windows: audio of any length through an encoder of bounded reach, the same offline and as it comes.

Block j of an audio is encoded with some of what lies before and after it, and only its own frames are
kept. Offline this bounds memory; streaming it bounds the delay; and since both cut at the same places,
both give the same frames.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lalia.config import Configuration
from lalia.errors import ConfigError
from lalia.streaming import State

__all__ = ["WindowState", "Windows", "encode_windows"]


@dataclass(frozen=True, kw_only=True)
class Windows(Configuration):
    """Lengths in seconds.

    :param block: what each window contributes.
    :param before: context before the block.
    :param after: context after it; with ``block``, the delay of streaming.
    """

    block: float = 22.0
    before: float = 4.0
    after: float = 2.0

    def __post_init__(self) -> None:
        if self.block <= 0 or self.before < 0 or self.after < 0:
            raise ConfigError(f"Windows has {self}. Give a block above 0 s and contexts of at least 0 s.")

    @property
    def seconds(self) -> float:
        """The longest piece that the encoder sees."""
        return self.before + self.block + self.after


@dataclass
class WindowState(State):
    """What a stream still needs: per row the samples from ``origin`` on, and the first sample not yet encoded."""

    samples: list[Tensor]
    origin: list[int]
    done: list[int]

    def select(self, rows: Tensor) -> "WindowState":
        picked: list[int] = rows.tolist()
        return WindowState(*([part[i] for i in picked] for part in (self.samples, self.origin, self.done)))

    def reset(self, fresh: "WindowState", rows: Tensor) -> "WindowState":
        return WindowState(
            *(
                [n if r else o for o, n, r in zip(old, new, rows.tolist(), strict=True)]
                for old, new in (
                    (self.samples, fresh.samples),
                    (self.origin, fresh.origin),
                    (self.done, fresh.done),
                )
            )
        )


def encode_windows(
    encode: Callable[[Tensor], Tensor],
    windows: Windows,
    sample_rate: int,
    hop: int,
    samples: Tensor,
    state: tuple[Tensor, int, int] | None,
    final: bool,
) -> tuple[list[Tensor], tuple[Tensor, int, int]]:
    """Frames of one row that can be had now.

    :param encode: [N] to [T, D], T = ceil(N / hop).
    :param samples: new samples [N].
    :param state: (kept samples, position of the first of them, position of the first sample not encoded).
    :returns: the new frames in pieces [T, D], and the state.
    """
    block = max(round(windows.block * sample_rate / hop), 1) * hop
    before = round(windows.before * sample_rate / hop) * hop
    after = round(windows.after * sample_rate / hop) * hop
    kept, origin, done = state if state is not None else (samples.new_zeros(0), 0, 0)
    kept = torch.cat([kept, samples]) if len(kept) else samples
    end = origin + len(kept)
    out = []
    while done < end and (final or done + block + after <= end):
        # The last block takes in what would be too little to stand alone: a short tail has no context after it.
        last = final and done + block + after >= end
        stop = end if last else done + block
        start = max(done - before, 0)
        piece = kept[start - origin : (end if last else stop + after) - origin]
        frames = encode(piece)
        first = (done - start) // hop
        out.append(frames[first:] if last else frames[first : first + block // hop])
        done = stop
    keep = max(done - before, 0) if not final else end
    return out, (kept[keep - origin :], keep, done)
