"""Stories of which the beginning and the endings are heard or read."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.evaluation.benchmarks import Bench, evaluate
from lalia.evaluation.benchmarks.told import Told
from lalia.evaluation.public_pairs import read_cross_modal


@pytest.fixture
def stories(tmp_path: Path, make_tone) -> Path:
    folder = tmp_path / "tSC"
    for name in ("2", "02", "10"):
        for part, level, text in (("mutual", 0.3, "aa"), ("correct", 0.5, "a b"), ("incorrect", 0.1, "a bcd")):
            make_tone(folder / f"{name}_{part}.wav", level)
            (folder / f"{name}_{part}.txt").write_text(text)
    return folder


class Likes:
    """Loud sound and short texts."""

    def __init__(self, deaf: bool = False) -> None:
        self.asked: list[list[str]] = []
        self.reads = not deaf

    def score_parts(self, parts: Sequence[Audio | str]) -> Told:
        kinds = ["text" if isinstance(p, str) else "speech" for p in parts]
        if "text" in kinds and not self.reads:
            raise ConfigError("It reads nothing. Choose another.")
        self.asked.append(kinds)
        return Told([-len(p) if isinstance(p, str) else float(p.samples.abs().max()) for p in parts], [0.0, 0.0], 0.0)


def run(model: Any, path: Path, **settings: Any) -> dict[str, Any]:
    result = evaluate(Bench(model, "likes", "likes", path=path, **settings), ["cross-modal"])
    found: dict[str, Any] = result["results"]["cross-modal"]
    return found


WAYS = [*product(("text", "speech"), repeat=2)]


@pytest.mark.parametrize(("prompt", "continuation"), WAYS)
def test_stories_of_a_way(stories: Path, prompt, continuation) -> None:
    read = read_cross_modal(stories, prompt, continuation)
    assert {s.pair.id for s in read} == {"2", "02", "10"}
    assert all(s.prompt.name == f"{s.pair.id}_mutual{s.prompt.suffix}" for s in read)
    assert {s.pair.task for s in read} == {f"StoryCloze-tSC-{prompt}-{continuation}"}


def test_all_four(stories: Path, tmp_path: Path) -> None:
    model = Likes()
    found = run(model, stories, folder=tmp_path / "kept")
    values = {f["key"]: (f["value"], f["n"]) for f in found["figures"]}
    assert values == {f"StoryCloze-tSC-{p}-{c}.{r}": (1.0, 3) for p, c in WAYS for r in ("mean", "sum")}
    assert sorted(model.asked[1:]) == sorted([[p, c] for p, c in WAYS] * 6)
    assert found["notes"] == []
    again = run(None, stories, folder=tmp_path / "kept", score_only=True)
    assert again == found
    assert len(run(Likes(), stories.parent, limit=1)["items"]) == 4


def test_who_reads_nothing_is_asked_about_speech(stories: Path) -> None:
    found = run(Likes(deaf=True), stories)
    assert {f["key"] for f in found["figures"]} == {f"StoryCloze-tSC-speech-speech.{r}" for r in ("mean", "sum")}
    assert len(found["notes"]) == 3
    assert found["notes"][0] == "tSC, text behind text: 3 of 3 have no score: It reads nothing. Choose another."
    assert found["details"]["counts"]["StoryCloze-tSC-text-speech"] == {"asked": 3, "answered": 0, "failed": 3}


def test_what_is_missing_or_wrong(stories: Path) -> None:
    (stories / "02_correct.txt").write_text(" ")
    found = run(Likes(), stories)
    assert found["details"]["counts"]["StoryCloze-tSC-text-text"] == {"asked": 3, "answered": 2, "failed": 1}
    assert "02_correct.txt is empty" in found["details"]["failures"][0]["reason"]
    (stories / "02_correct.txt").unlink()
    with pytest.raises(DataError, match=r"no 02_correct\.txt"):
        run(Likes(), stories)
    with pytest.raises(ConfigError, match="no modality 'video'"):
        read_cross_modal(stories, "video", "text")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has no stories"):
        read_cross_modal(stories.parent, "text", "text")
    with pytest.raises(DataError, match="No folder of stories was named"):
        run(Likes(), stories / "2_correct.wav")
    with pytest.raises(ConfigError, match="cannot be asked for cross-modal"):
        run(object(), stories)


def test_a_model_of_speech_and_text_by_turns(stories: Path) -> None:
    from lalia.model import Model
    from lalia.recipes.spirit_lm import spirit_lm

    model = Model(spirit_lm().tiny())
    clip = Audio.load(Path(__file__).parents[3] / "examples" / "question.flac")
    model.tokenizer("speech").fit([clip])
    alone = model.score_parts([clip])
    assert alone.sum == pytest.approx(model.score(clip).sum)
    written = model.score_parts(["hello world"])
    assert written.tokens == 11
    for parts in (["hello world", clip], [clip, "hello world"], ["hello", "world", clip]):
        both = model.score_parts(parts)  # type: ignore[arg-type]
        assert both.tokens == alone.tokens + written.tokens
        # What comes first is as likely as alone, but for the marker between them, which is not counted.
        first = written if isinstance(parts[0], str) else alone
        heard = both.log_probs[alone.tokens :] if isinstance(parts[0], str) else both.log_probs[: alone.tokens]
        assert list(heard) == pytest.approx(list(first.log_probs), abs=1e-4)
    assert {f["n"] for f in run(model, stories)["figures"]} == {3}


def test_a_model_of_speech_alone_reads_no_text(tiny: Path) -> None:
    from lalia.model import Model

    with pytest.raises(ConfigError, match="does not read speech and text by turns"):
        Model.load(tiny).score_parts(["hello"])
    clip = Audio.load(Path(__file__).parents[3] / "examples" / "question.flac")
    heard = Model.load(tiny).score_parts([clip.cut(0, 1), clip.cut(1)])
    assert heard.sum == pytest.approx(Model.load(tiny).score(clip).sum, rel=0.1)
