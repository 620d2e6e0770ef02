"""How well a representation of speech keeps phones apart, what it knows of them, and how many bits it takes."""

from lalia.evaluation.representation.abx_task import Abx, Cell, abx
from lalia.evaluation.representation.bit_rate import BitRate, measured_bit_rate, nominal_bit_rate
from lalia.evaluation.representation.distances import Distance
from lalia.evaluation.representation.items import Item, items_of, load_items, save_items
from lalia.evaluation.representation.represent import Representation, represent
from lalia.evaluation.representation.unit_phones import UnitPhones, unit_phones

__all__ = [
    "Abx",
    "BitRate",
    "Cell",
    "Distance",
    "Item",
    "Representation",
    "UnitPhones",
    "abx",
    "items_of",
    "load_items",
    "measured_bit_rate",
    "nominal_bit_rate",
    "represent",
    "save_items",
    "unit_phones",
]
