"""Layouts: how streams share the steps of a language model."""

from lalia.layouts.cells import Cell, Choice, Extent, Slot, Step
from lalia.layouts.cursor import Cursor, Laid, grid_of
from lalia.layouts.grid import ABSENT, Grid
from lalia.layouts.kinds import Chunks, Concat, Flat, Merge, Parallel, Switch
from lalia.layouts.layout import Layout
from lalia.layouts.vocabulary import Vocabulary

__all__ = [
    "ABSENT",
    "Cell",
    "Choice",
    "Chunks",
    "Concat",
    "Cursor",
    "Extent",
    "Flat",
    "Grid",
    "Laid",
    "Layout",
    "Merge",
    "Parallel",
    "Slot",
    "Step",
    "Switch",
    "Vocabulary",
    "grid_of",
]
