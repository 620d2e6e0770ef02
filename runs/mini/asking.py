"""What people ask a machine that they talk to: questions and requests of everyday life, by the grammar beside this.

The questions that ``lalia eval`` asks are left out.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from lalia.evaluation.benchmarks.bundled import TEXTS

__all__ = ["requests"]

_OPENINGS = *("" for _ in range(6)), "Please tell me: ", "I wonder, ", "Hey, ", "So, ", "Excuse me, ", "OK, ", "Well, "


def requests(count: int, seed: int = 0) -> Iterator[str]:
    """Lines that differ, as many as asked for or as there are."""
    grammar = yaml.safe_load(Path(__file__).with_name("requests.yaml").read_text("utf-8"))
    slots = {name: words.split(", ") for name, words in grammar["slots"].items()}
    frames = grammar["frames"].splitlines()
    draw, seen, made = random.Random(seed), {_plain(question["text"]) for question in TEXTS["questions"]}, 0
    for _ in range(50 * count):
        if made == count:
            return
        line = re.sub(r"{(\w+)}", lambda found: draw.choice(slots[found[1]]), draw.choice(frames))
        if _plain(line) in seen:
            continue
        seen.add(_plain(line))
        made += 1
        opening = draw.choice(_OPENINGS)
        yield opening + (line[0].lower() + line[1:] if opening and not line.startswith("I ") else line)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text.lower()).strip()
