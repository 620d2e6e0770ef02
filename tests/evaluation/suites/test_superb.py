from pathlib import Path
from typing import Any

import pytest
import torch

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.evaluation.downstream import Turn
from lalia.evaluation.suites import METRICS, score_superb

NOISE = torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
CLIP = Path(__file__).parents[3] / "examples" / "question.flac"


def cases() -> dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    ids = ("a", "b", "c")
    same = dict.fromkeys(ids, "x")
    clean = {"a": Audio.load(CLIP).mono().to(16_000).cut(0, 2)}
    return {
        "PR": (dict.fromkeys(ids, "HH AH"), dict.fromkeys(ids, "HH AH"), {}),
        "ASR": (dict.fromkeys(ids, "HELLO"), dict.fromkeys(ids, "HELLO"), {}),
        "KS": (same, same, {}),
        "IC": (dict.fromkeys(ids, ("act", "thing", "place")), dict.fromkeys(ids, ("act", "thing", "place")), {}),
        "SID": (same, same, {}),
        "ER": (same, same, {"folds": {"a": 1, "b": 2, "c": 2}}),
        "ASV": ({"a": True, "b": False}, {"a": 1.0, "b": 0.0}, {}),
        "SD": ({"a": [Turn(0, 1, "A")]}, {"a": [Turn(0, 1, "B")]}, {}),
        "SF": ({"a": "go to B-city rome E-city"}, {"a": "B-city rome E-city"}, {}),
        "QbE": ({"q": ["u1"]}, {"q": {"u1": 9.0, **{f"x{i}": 0.1 * (i % 2) for i in range(20)}}}, {"seconds": 100}),
        "ST": ({"a": "eins zwei drei vier"}, {"a": "eins zwei drei vier"}, {}),
        "SE": (clean, clean, {"seed": 1}),
        "SS": ({"a": NOISE}, {"a": NOISE.flip(0)}, {"mixtures": {"a": NOISE.sum(0)}}),
    }


@pytest.mark.parametrize("task", METRICS)
def test_every_task_has_its_figures(task: Any) -> None:
    needs = {"SD": ["scipy"], "SS": ["scipy"], "ST": ["sacrebleu"], "SE": ["pesq", "pystoi"]}
    for package in needs.get(task, ()):
        pytest.importorskip(package)
    references, predictions, more = cases()[task]
    found = score_superb(task, references, predictions, **more)
    assert tuple(found.figures)[: len(METRICS[task])] == METRICS[task]
    perfect = {"accuracy": 1, "accuracy_over_folds": 1, "slot_type_f1": 1, "mtwv": 1, "bleu": 100}
    first = METRICS[task][0]
    if task not in ("SE", "SS"):
        assert found.value == pytest.approx(perfect.get(first, 0))


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="Give folds"):
        score_superb("ER", {"a": "x"}, {})
    with pytest.raises(ConfigError, match="no task 'VC'"):
        score_superb("VC", {}, {})  # type: ignore[arg-type]
    found = score_superb("IC", {"a": ("on", "light", "hall")}, {"a": ("on", "light", "kitchen")})
    assert found.value == 0
