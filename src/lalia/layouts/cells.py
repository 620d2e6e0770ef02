"""Cells: the one vocabulary in which every layout is written.

A layout says which cells share one step of the LM. It writes that as ``plan``, a lazy iterator of
steps; each step is a tuple of slots, and a slot holds one cell, a choice between cells, or nothing.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

__all__ = ["Cell", "Choice", "Extent", "Slot", "Step", "cells_of"]


class Cell(NamedTuple):
    """One code (or one frame of features): position ``t`` of a codebook of a stream.

    The end of a stream of L tokens is its cell ``t == L`` in codebook 0.
    """

    stream: str
    codebook: int
    t: int


class Choice(NamedTuple):
    """Cells of which exactly one comes next, and only the model can tell which.

    It needs one vocabulary over all their streams.
    """

    cells: tuple[Cell, ...]


Slot = Cell | Choice | None
Step = tuple[Slot, ...]


class Extent(Protocol):
    """What a plan may ask about the streams. The answers are facts in training, and grow in generation."""

    def num_codebooks(self, stream: str) -> int:
        """K of a stream; 1 for features."""
        ...

    def reaches(self, stream: str, t: int, codebook: int = 0) -> bool:
        """Whether the cell exists, or may yet. The end of a stream counts as a cell of codebook 0."""
        ...

    def pick(self, candidates: tuple[Cell, ...]) -> Cell | None:
        """The candidate that comes first in time, or None while only the model can tell."""
        ...

    def value(self, stream: str, t: int) -> int:
        """The code at ``t`` of codebook 0, laid before; the end id at the end."""
        ...


def cells_of(step: Step) -> Iterable[Cell]:
    """The cells of a step whose choices are all made."""
    for slot in step:
        if slot is not None:
            assert isinstance(slot, Cell)
            yield slot
