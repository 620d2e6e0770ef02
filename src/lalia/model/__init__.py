"""The model that a user holds: load it, and ask it to continue, resynthesize or score.

Everything on the command line is a few lines over this.
"""

from lalia.model.continuation import Continuation
from lalia.model.held import HeldTokenizers
from lalia.model.model import Model
from lalia.model.scoring import Scores
from lalia.model.shelf import bundled, find, holds_tokenizer, load, load_tokenizer, open_tokenizer, save_tokenizer
from lalia.model.speaking import Reply, is_duplex

__all__ = [
    "Continuation",
    "HeldTokenizers",
    "Model",
    "Reply",
    "Scores",
    "bundled",
    "find",
    "holds_tokenizer",
    "is_duplex",
    "load",
    "load_tokenizer",
    "open_tokenizer",
    "save_tokenizer",
]
