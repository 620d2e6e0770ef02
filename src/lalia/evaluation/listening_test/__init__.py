"""Listening tests: people rate what systems said, blind and in balance, and their ratings are analysed.

`lalia.server.listening_test` shows them to people.
"""

from lalia.evaluation.listening_test.analysis import analyse, analyse_folder, table
from lalia.evaluation.listening_test.material import KINDS, Item, Kind, Material
from lalia.evaluation.listening_test.plan import Screen, plan
from lalia.evaluation.listening_test.records import Record, read_ratings
from lalia.evaluation.listening_test.screening import Verdict, screen_listeners
from lalia.evaluation.listening_test.session import ListeningTest, Refused, Task

__all__ = [
    "KINDS",
    "Item",
    "Kind",
    "ListeningTest",
    "Material",
    "Record",
    "Refused",
    "Screen",
    "Task",
    "Verdict",
    "analyse",
    "analyse_folder",
    "plan",
    "read_ratings",
    "screen_listeners",
    "table",
]
