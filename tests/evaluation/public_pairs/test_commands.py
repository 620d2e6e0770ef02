"""Public pairs as a user asks for them: ``lalia eval MODEL pairs|cross-modal --data …``."""

import json
from pathlib import Path
from typing import Any

import pytest

from lalia.audio import Audio
from lalia.evaluation.public_pairs import score_submission
from lalia.evaluation.public_pairs.zerospeech import SPLITS

EXAMPLE = Path(__file__).parents[3] / "examples" / "question.flac"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model is compared with needs weights."""
    monkeypatch.setattr("lalia.evaluation.benchmarks.minimal_pairs.baselines", lambda *_: ([], []))


def test_scores_are_handed_in(tmp_path: Path, tiny: Path, lalia: Any, make_gold, make_lexical) -> None:
    data, home = tmp_path / "data", tmp_path / "mine"
    golds = [make_gold(data / "lexical" / split, make_lexical([("cat", 0), ("dog", 7)])) for split in SPLITS]
    ran = lalia("eval", tiny, "pairs", "--data", data, "--submission", home, "--json")
    assert ran.status == 0, ran.err
    assert sorted(p.relative_to(home).as_posix() for p in home.rglob("*.txt")) == [
        "lexical/dev.txt",
        "lexical/test.txt",
    ]
    figures = {f["key"]: f["value"] for f in json.loads(ran.out)["results"]["pairs"]["figures"]}
    for gold in golds:
        split = gold.parent.name
        found = score_submission(gold, home / "lexical" / f"{split}.txt")["tasks"][f"sWUGGY-{split}"]
        assert found["score"]["accuracy"]["value"] == figures[f"sWUGGY-{split}.sum"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["cross-modal"], "A submission is of sWUGGY or sBLIMP"),
        (["pairs"], "A submission is of sWUGGY or sBLIMP"),
        (["pairs", "--limit", "1"], "A submission has the score of every recording"),
    ],
)
def test_what_cannot_be_handed_in_is_told_first(
    tmp_path: Path, tiny: Path, lalia: Any, make_gold, make_lexical, more: list[str], message: str
) -> None:
    data = tmp_path / "dev"
    if "--limit" in more:
        make_gold(data, make_lexical([("cat", 0)]))
    ran = lalia("eval", tiny, *more, "--data", data, "--submission", tmp_path / "mine")
    assert ran.status == 2
    assert message in ran.err


def test_stories_of_a_model_of_speech_alone(tmp_path: Path, tiny: Path, lalia: Any) -> None:
    for part in ("mutual", "correct", "incorrect"):
        (tmp_path / "tSC").mkdir(exist_ok=True)
        Audio.load(EXAMPLE).save(tmp_path / "tSC" / f"1_{part}.wav")
        (tmp_path / "tSC" / f"1_{part}.txt").write_text(part)
    ran = lalia("eval", tiny, "cross-modal", "--data", tmp_path)
    assert ran.status == 0, ran.err
    assert "speech behind speech: log p per token" in ran.out
    assert ran.out.count("does not read speech and text by turns") == 3
