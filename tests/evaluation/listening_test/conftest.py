"""Recordings of systems: a tone each, so that who hears one can tell whose it is."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lalia.evaluation.listening_test import Material

RATE = 8000


def tone(path: Path, hertz: float, seconds: float = 0.3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE), RATE)
    return path


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Material]:
    def made(systems: int = 3, items: int = 6, *, prompts: bool = False, references: bool = False) -> Material:
        folders: Mapping[str, Path] = {f"secret-{s}": tmp_path / f"system{s}" for s in range(systems)}
        for s, folder in enumerate(folders.values()):
            for i in range(items):
                tone(folder / f"phrase{i:02}.wav", 200 + 100 * s + i)
        for name, wanted in (("prompts", prompts), ("references", references)):
            for i in range(items if wanted else 0):
                tone(tmp_path / name / f"phrase{i:02}.wav", 150 + i, 0.2)
        return Material.from_folders(
            folders,
            prompts=tmp_path / "prompts" if prompts else None,
            references=tmp_path / "references" if references else None,
        )

    return made


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., Path]:
    def made(*rows: dict[str, str] | str) -> Path:
        path = tmp_path / "manifest.jsonl"
        path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
        return path

    return made
