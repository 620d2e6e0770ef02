"""Streams: everything between audio and audio is a named sequence of codes or features.

Shapes: B batch, K codebooks, T frames, D dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lalia.config import Configuration
from lalia.errors import ConfigError, LayoutError

__all__ = [
    "Continuous",
    "Discrete",
    "Kind",
    "StreamSpec",
    "Streams",
    "TokenSequence",
    "nothing",
    "pad_batch",
    "valid_steps",
]


@dataclass(frozen=True)
class Discrete(Configuration):
    """Codes: ``num_codebooks`` of ``codebook_size`` each.

    ``end`` is the id that closes the stream where the codebook has one of its own (a text tokenizer's
    end-of-text); otherwise lalia appends one, ``codebook_size``.
    """

    codebook_size: int
    num_codebooks: int = 1
    end: int | None = None

    def __post_init__(self) -> None:
        if self.codebook_size < 1 or self.num_codebooks < 1:
            raise ConfigError(
                f"A stream has {self.num_codebooks} codebooks of {self.codebook_size} codes. Give at least 1 of each."
            )
        if self.end is not None and not 0 <= self.end < self.codebook_size:
            raise ConfigError(
                f"A stream ends with id {self.end}, but has ids 0 to {self.codebook_size - 1}. Name one of them."
            )

    @property
    def end_id(self) -> int:
        """The id that closes the stream; it lives in codebook 0."""
        return self.codebook_size if self.end is None else self.end

    @property
    def num_ids(self) -> int:
        """Ids per codebook, the end included."""
        return self.codebook_size + (self.end is None)

    def predicted_ids(self, codebook: int, *, closed: bool) -> int:
        """How many ids of a codebook can come: only codebook 0 of a stream that is closed has an end."""
        return self.num_ids if closed and codebook == 0 else self.codebook_size


@dataclass(frozen=True)
class Continuous(Configuration):
    """Features of ``dim`` values per frame."""

    dim: int

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ConfigError(f"A continuous stream has features of {self.dim} values. Give at least 1.")


Kind = Discrete | Continuous


@dataclass(frozen=True, kw_only=True)
class StreamSpec(Configuration):
    """What a stream holds.

    :param frame_rate: frames per second (Hz) *before* any removal of repeats, or None where the stream
        has no clock (plain text).
    :param deduplicated: runs of equal codes are one token each; ``TokenSequence.durations`` has their frames.
    """

    kind: Discrete | Continuous
    frame_rate: float | None
    deduplicated: bool = False

    def __post_init__(self) -> None:
        if self.frame_rate is not None and not self.frame_rate > 0:
            raise ConfigError(f"A stream has a frame rate of {self.frame_rate} Hz. Give one above 0, or None.")

    @property
    def clocked(self) -> bool:
        """Whether every token lasts exactly one frame."""
        return self.frame_rate is not None and not self.deduplicated


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """A batch of sequences of one stream.

    ``values`` [B, K, T] integer codes, or [B, T, D] features; ``lengths`` [B] tokens;
    ``durations`` [B, T] frames per token, after removal of repeats;
    ``times`` [B, T] start of each token in seconds, where known (words of a transcript).
    """

    values: Tensor
    lengths: Tensor
    durations: Tensor | None = None
    times: Tensor | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 3:
            raise LayoutError(
                f"A TokenSequence has values of shape {tuple(self.values.shape)}. Give [B, K, T] or [B, T, D]."
            )
        if self.lengths.shape != (len(self),):
            raise LayoutError(f"A TokenSequence of {len(self)} rows has lengths of shape {tuple(self.lengths.shape)}.")

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def discrete(self) -> bool:
        return not self.values.is_floating_point()

    @property
    def num_tokens(self) -> int:
        """T, padding included."""
        return self.values.shape[2 if self.discrete else 1]

    def row(self, b: int) -> "TokenSequence":
        """Row ``b`` alone, without padding."""
        n = int(self.lengths[b])
        return TokenSequence(
            self.values[b : b + 1, :, :n] if self.discrete else self.values[b : b + 1, :n],
            self.lengths[b : b + 1],
            None if self.durations is None else self.durations[b : b + 1, :n],
            None if self.times is None else self.times[b : b + 1, :n],
        )

    def cut(self, start: int, stop: int | None = None) -> "TokenSequence":
        """Tokens ``start`` to ``stop`` of every row."""
        stop = self.num_tokens if stop is None else min(stop, self.num_tokens)
        return TokenSequence(
            self.values[:, :, start:stop] if self.discrete else self.values[:, start:stop],
            (self.lengths - start).clamp(0, max(stop - start, 0)),
            None if self.durations is None else self.durations[:, start:stop],
            None if self.times is None else self.times[:, start:stop],
        )

    def to(self, device: torch.device | str) -> "TokenSequence":
        return TokenSequence(*(None if x is None else x.to(device) for x in self._tensors()))  # type: ignore[arg-type]

    def _tensors(self) -> tuple[Tensor | None, ...]:
        return self.values, self.lengths, self.durations, self.times

    # -- runs -----------------------------------------------------------------------------------

    def deduplicate(self) -> "TokenSequence":
        """Runs of equal codes as one token each, their frames in ``durations``.

        :raises LayoutError: there is more than one codebook, or none.
        """
        if self.durations is not None:
            return self
        if not self.discrete or self.values.shape[1] != 1:
            what = f"{self.values.shape[1]} codebooks" if self.discrete else "features"
            raise LayoutError(f"Repeats are removed from one codebook, not from {what}. Set deduplicate=False.")
        rows = []
        for b in range(len(self)):
            codes, counts = torch.unique_consecutive(self.row(b).values[0, 0], return_counts=True)
            rows.append(TokenSequence(codes[None, None], self.lengths.new_tensor([len(codes)]), counts[None]))
        return pad_batch(rows)

    def expand(self) -> "TokenSequence":
        """The inverse of ``deduplicate``: every token repeated for its duration."""
        if self.durations is None:
            return self
        rows = []
        for b in range(len(self)):
            row = self.row(b)
            assert row.durations is not None
            values = torch.repeat_interleave(row.values, row.durations[0], dim=2 if self.discrete else 1)
            rows.append(TokenSequence(values, self.lengths.new_tensor([int(row.durations.sum())])))
        return pad_batch(rows)


Streams = dict[str, TokenSequence]
"""Streams by name."""


def valid_steps(lengths: Tensor, size: int) -> Tensor:
    """Which of ``size`` steps of each row are not padding [B, size], on the device of ``lengths`` [B]."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def nothing(spec: StreamSpec, rows: int = 1) -> TokenSequence:
    """A stream of which there is nothing, in so many rows."""
    if isinstance(spec.kind, Discrete):
        values = torch.zeros((rows, spec.kind.num_codebooks, 0), dtype=torch.long)
    else:
        values = torch.zeros((rows, 0, spec.kind.dim))
    return TokenSequence(values, torch.zeros(rows, dtype=torch.long))


def pad_batch(rows: Sequence[TokenSequence]) -> TokenSequence:
    """One batch of all rows, padded with zeros to the longest.

    :raises LayoutError: no rows, or rows of different kinds.
    """
    if not rows:
        raise LayoutError("A batch of no sequences. Give at least one.")
    longest = max(r.num_tokens for r in rows)
    discrete = rows[0].discrete

    def join(name: str, last: bool) -> Tensor | None:
        parts: list[Tensor | None] = [getattr(r, name) for r in rows]
        present = [p for p in parts if p is not None]
        if not present:
            return None
        if len(present) < len(parts):
            raise LayoutError(f"Of {len(parts)} sequences {len(present)} have {name}. Give them to all or to none.")
        if len(present) == 1:
            return present[0]
        return torch.cat([_pad(p, longest, last) for p in present])

    if any(r.discrete != discrete for r in rows):
        raise LayoutError("A batch mixes codes and features. Give sequences of one stream.")
    values = join("values", discrete)
    assert values is not None
    return TokenSequence(
        values, torch.cat([r.lengths for r in rows]), join("durations", last=True), join("times", last=True)
    )


def _pad(x: Tensor, length: int, last: bool) -> Tensor:
    room = length - x.shape[-1 if last else 1]
    return torch.nn.functional.pad(x, (0, room) if last else (0, 0, 0, room))
