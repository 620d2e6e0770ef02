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
        if not (self.block > 0 and self.before >= 0 and self.after >= 0):
            raise ConfigError(
                f"Windows have a block of {self.block} s between {self.before} s and {self.after} s. "
                "Give a block above 0 s and contexts of at least 0 s."
            )

    @property
    def seconds(self) -> float:
        """The longest piece that the encoder sees."""
        return self.before + self.block + self.after

    def sizes(self, sample_rate: int, hop: int) -> tuple[int, int, int]:
        """Before, block and after in samples, each the nearest multiple of ``hop``."""
        before, block, after = (round(s * sample_rate / hop) * hop for s in (self.before, self.block, self.after))
        return before, max(block, hop), after


@dataclass
class WindowState(State):
    """What a stream still needs: per row the samples from ``origin`` on, and the first sample not yet encoded."""

    samples: list[Tensor]
    origin: list[int]
    done: list[int]

    @classmethod
    def empty(cls, batch_size: int) -> "WindowState":
        """Before the first sample."""
        return cls([torch.zeros(0) for _ in range(batch_size)], [0] * batch_size, [0] * batch_size)

    def select(self, rows: Tensor) -> "WindowState":
        picked: list[int] = rows.tolist()
        return WindowState(
            [self.samples[i] for i in picked], [self.origin[i] for i in picked], [self.done[i] for i in picked]
        )

    def reset(self, fresh: "WindowState", rows: Tensor) -> "WindowState":
        sources = [fresh if new else self for new in rows.tolist()]
        return WindowState(
            [s.samples[b] for b, s in enumerate(sources)],
            [s.origin[b] for b, s in enumerate(sources)],
            [s.done[b] for b, s in enumerate(sources)],
        )


def encode_windows(
    encode: Callable[[Tensor], Tensor],
    sizes: tuple[int, int, int],
    hop: int,
    samples: Tensor,
    state: WindowState | None,
    row: int,
    *,
    final: bool,
    each: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """Frames of one row that can be had now, in pieces.

    :param encode: [N] to [T, D], T = ceil(N / hop).
    :param sizes: of ``Windows``.
    :param samples: new samples [N].
    :param state: where the stream stands, its row ``row`` updated in place; None for a whole recording.
    :param final: no more samples follow. The row of the state is then that of a new stream.
    :param each: is applied to what is kept of each window, [t, D].
    """
    before, block, after = sizes
    origin = done = 0
    if state is not None:
        origin, done = state.origin[row], state.done[row]
        samples = torch.cat([state.samples[row].to(samples), samples])
    end = origin + len(samples)
    out = []
    # A stream waits for one sample more than the window has: whether the block is the last depends on it.
    while done < end and (final or done + block + after < end):
        # The last block takes in what would be too little to stand alone: a short tail has no context after it.
        last = done + block + after >= end
        start = max(done - before, 0)
        stop = end if last else done + block + after
        frames = encode(samples[start - origin : stop - origin])
        first = (done - start) // hop
        out.append(each(frames[first:] if last else frames[first : first + block // hop]))
        done = end if last else done + block
    if state is not None:
        keep = end if final else max(done - before, 0)
        state.samples[row] = samples[keep - origin :].clone()
        state.origin[row], state.done[row] = (0, 0) if final else (keep, done)
    return out
