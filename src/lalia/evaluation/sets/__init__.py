"""Small sets of pairs that lalia makes by itself with an installed synthesizer, without any download.

They ask what benchmarks of speech language models ask, and are none of them: their names begin with ``mini-``.
"""

from lalia.evaluation.sets.making import MINI_SETS, MiniSet, cached_set, make_set, set_place

__all__ = ["MINI_SETS", "MiniSet", "cached_set", "make_set", "set_place"]
