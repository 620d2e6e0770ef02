"""The same work over several models, and a page that shows what their parts make of it."""

from lalia.evaluation.comparison.alone import Alone
from lalia.evaluation.comparison.judges import Judges
from lalia.evaluation.comparison.page import save_page, summary
from lalia.evaluation.comparison.parts import parts_of
from lalia.evaluation.comparison.work import Subject, compare, gather
from lalia.evaluation.comparison.works import WORKS, Task

__all__ = ["WORKS", "Alone", "Judges", "Subject", "Task", "compare", "gather", "parts_of", "save_page", "summary"]
