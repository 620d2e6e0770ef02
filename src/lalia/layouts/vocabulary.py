"""Vocabulary: which rows of an embedding table belong to which stream.

Offsets live here and nowhere else.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from lalia.streams import Discrete

__all__ = ["Vocabulary"]


class Vocabulary:
    """The rows of one table, shared by the codebooks of one or several streams.

    Streams are laid out by name, so that ids never depend on the order in which a file lists them; those
    of ``first`` (a pretrained text vocabulary) come before, so that their rows keep their numbers.

    :param kinds: the streams that share the table.
    :param first: the stream whose ids are rows 0, 1, ... of the table.
    """

    def __init__(self, kinds: Mapping[str, Discrete], *, first: str | None = None) -> None:
        self._ranges: dict[tuple[str, int], range] = {}
        row = 0
        for name in sorted(kinds, key=lambda n: (n != first, n)):
            for codebook in range(kinds[name].num_codebooks):
                self._ranges[name, codebook] = range(row, row + kinds[name].num_ids)
                row += kinds[name].num_ids
        self.size = row
        """Rows of the table."""

    def rows(self, stream: str, codebook: int) -> range:
        """The rows of one codebook of a stream, its end last where lalia appended one."""
        return self._ranges[stream, codebook]

    def offsets(self, stream: str) -> Tensor:
        """First row of each codebook [K]."""
        return torch.tensor([r.start for (s, _), r in self._ranges.items() if s == stream])

    def decode(self, row: int) -> tuple[str, int, int]:
        """The stream, codebook and id of a row."""
        for (stream, codebook), rows in self._ranges.items():
            if row in rows:
                return stream, codebook, row - rows.start
        raise IndexError(f"row {row} of a vocabulary of {self.size}")
