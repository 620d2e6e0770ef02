import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from lalia.audio import Audio

RATE = 16_000


def tone(path: Path, level: float = 0.5, *, tenths: int = 1, rate: int = RATE) -> Path:
    """A tone of so many tenths of a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return Audio(level * torch.cos(torch.arange(tenths * rate // 10) * 0.3), rate).save(path)


def gold(folder: Path, rows: Sequence[Mapping[str, object]], *, sounds: bool = True) -> Path:
    """A table, with its recordings: those that are correct are louder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "gold.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows if sounds else ():
        tone(folder / f"{row['filename']}.wav", 0.5 if str(row["correct"]) == "1" else 0.25)
    return folder / "gold.csv"


def lexical(words: Sequence[tuple[str, object]], voices: Sequence[str] = ("v", "w")) -> list[dict[str, object]]:
    """Rows of sWUGGY: words with their counts, each with a nonword, in each voice; shuffled as in the original."""
    rows: list[dict[str, object]] = []
    for n, (word, count) in enumerate(words):
        for voice in voices:
            for right, text in ((1, word), (0, f"{word}x")):
                common = {"id": n, "filename": f"{voice}{n}{'ab'[right]}", "voice": voice}
                frequency = count if right else ""
                rows.append(
                    {
                        **common,
                        "frequency": frequency,
                        "word": text,
                        "phones": "P",
                        "length": len(word),
                        "correct": right,
                    }
                )
    return rows[::-1]


@pytest.fixture
def make_tone() -> Callable[..., Path]:
    return tone


@pytest.fixture
def make_gold() -> Callable[..., Path]:
    return gold


@pytest.fixture
def make_lexical() -> Callable[..., list[dict[str, object]]]:
    return lexical
