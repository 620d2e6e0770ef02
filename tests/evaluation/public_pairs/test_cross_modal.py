"""Stories of which the beginning and the endings are heard or read."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.evaluation.benchmarks.told import Told
from lalia.evaluation.public_pairs import read_cross_modal, score_cross_modal


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

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def score_parts(self, parts: Sequence[Audio | str]) -> Told:
        self.asked.append(["text" if isinstance(p, str) else "speech" for p in parts])
        return Told([-len(p) if isinstance(p, str) else float(p.samples.abs().max()) for p in parts], [0.0, 0.0], 0.0)


@pytest.mark.parametrize(("prompt", "continuation"), [*product(("text", "speech"), repeat=2)])
def test_all_four(stories: Path, prompt, continuation) -> None:
    model = Likes()
    read = read_cross_modal(stories, prompt, continuation)
    assert {s.pair.id for s in read} == {"2", "02", "10"}
    assert all(s.prompt.name == f"{s.pair.id}_mutual{s.prompt.suffix}" for s in read)
    (task,) = (found := score_cross_modal(model, read))["tasks"]
    assert task == f"StoryCloze-tSC-{prompt}-{continuation}"
    assert found["tasks"][task]["mean"]["accuracy"]["value"] == 1.0
    assert model.asked == [[prompt, continuation]] * 6


def test_what_is_missing_or_wrong(stories: Path) -> None:
    read = read_cross_modal(stories, "text", "text")
    (stories / "02_correct.txt").write_text(" ")
    found = score_cross_modal(Likes(), read)
    (task,) = found["tasks"].values()
    assert (task["asked"], task["answered"]) == (3, 2)
    assert "02_correct.txt is empty" in found["failures"][0]["reason"]
    (stories / "02_correct.txt").unlink()
    with pytest.raises(DataError, match=r"no 02_correct\.txt"):
        read_cross_modal(stories, "speech", "text")
    with pytest.raises(ConfigError, match="no modality 'video'"):
        read_cross_modal(stories, "video", "text")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has no stories"):
        read_cross_modal(stories.parent, "text", "text")


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
    found = score_cross_modal(model, read_cross_modal(stories, "speech", "text"))
    assert next(iter(found["tasks"].values()))["answered"] == 3


def test_a_model_of_speech_alone_reads_no_text(tiny: Path) -> None:
    from lalia.model import Model

    with pytest.raises(ConfigError, match="does not read speech and text by turns"):
        Model.load(tiny).score_parts(["hello"])
