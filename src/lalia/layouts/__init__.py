"""Layouts: how streams share the steps of a language model."""

from lalia.layouts.cells import Cell, Choice, Extent, Slot, Step
from lalia.layouts.cursor import Cursor, Laid, grid_of
from lalia.layouts.grid import ABSENT, Grid
from lalia.layouts.kinds import Chunks, Concat, Flat, Parallel
from lalia.layouts.layout import Layout, check_streams
from lalia.layouts.timed import Merge, Switch
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
    "check_streams",
    "grid_of",
]
