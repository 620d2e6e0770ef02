"""The same benchmarks for several models, and a page that shows what their parts make of it."""

from lalia.evaluation.comparison.page import save_page, summary
from lalia.evaluation.comparison.parts import parts_of
from lalia.evaluation.comparison.work import Subject, compare, gather

__all__ = ["Subject", "compare", "gather", "parts_of", "save_page", "summary"]
