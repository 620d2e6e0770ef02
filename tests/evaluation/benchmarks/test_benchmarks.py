"""Each benchmark on a model whose faults are known: it finds these, and no others."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lalia.audio import Audio
from lalia.data import Manifest, Utterance
from lalia.errors import ConfigError, DataError
from lalia.evaluation.benchmarks import BENCHMARKS, questions, recordings
from lalia.evaluation.benchmarks.answers import overlap, same_content
from lalia.evaluation.benchmarks.bundled import HOME, TEXTS
from lalia.evaluation.benchmarks.memory import peak_of
from lalia.evaluation.benchmarks.robustness import hard_sounds
from lalia.evaluation.benchmarks.tone import deliveries

UNCLEAR = "Pardon?"


def figures(found: Any) -> dict[str, Any]:
    return {f.key: f.estimate for f in found.figures}


# -- what is bundled ----------------------------------------------------------------------------


def test_what_is_bundled_is_what_its_manifest_says() -> None:
    everything = recordings("")
    assert len(questions()) == len(TEXTS["questions"]) == len(TEXTS["sentences"]) == 40
    assert len(recordings("tone-")) == 4 * len(TEXTS["tone"])
    assert sum(u.path.stat().st_size for u in everything) < 1e6
    assert {p.stem for p in HOME.glob("*.opus")} == {u.id for u in everything}
    for u in everything:
        audio = u.load()
        assert (audio.sample_rate, audio.seconds) == (16_000, pytest.approx(u.duration, abs=1e-3))
    # Voices that read what mini trains on are not among those that ask.
    asked = {u.speaker for u in recordings("question-")}
    assert len(asked) == 8
    script = (Path(__file__).parents[3] / "runs/mini/speak.py").read_text()
    (held_out,) = re.findall(r"^HELD_OUT = \((.*)\)", script, re.MULTILINE)
    assert {v for v in asked if v and "_" in v} == set(re.findall(r"\w+", held_out))


def test_deliveries_are_the_same_words_in_other_sound() -> None:
    found = dict(deliveries(1))
    assert next(iter(found)) == "neutral"
    assert set(found) == {"neutral", "slow", "fast", "whispered", "loud", "quiet", "higher", "lower"}
    assert found["slow"].seconds > found["neutral"].seconds > found["fast"].seconds
    assert found["loud"].samples.abs().max() == pytest.approx(0.98)
    assert found["higher"].seconds == pytest.approx(found["neutral"].seconds / 1.15, rel=1e-3)


# -- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "key", "same"),
    [
        ("the capital of france is paris", "paris is the capital", ("paris",), True),
        ("the capital is paris", "the capital is lyon", ("paris",), False),
        ("the capital is lyon", "the capital of france is lyon", ("paris",), True),
        ("bees make honey from flowers", "they collect nectar from flowers", (), False),
        ("yes fish sleep at night", "no fish sleep at night", (), False),
        ("yes", "yes", (), True),
        ("", "anything", (), False),
        ("", "", (), True),
    ],
)
def test_what_says_the_same(first: str, second: str, key: tuple[str, ...], same: bool) -> None:
    assert same_content(first, second, key) == same == same_content(second, first, key)


def test_overlap_counts_content_words() -> None:
    assert overlap("the red cat", "a red dog") == pytest.approx(0.5)
    assert overlap("red red cat", "red cat") == pytest.approx(2 * 2 / 5)
    assert overlap("it is", "is it") == 1.0


def test_answers_finds_what_was_heard_wrong(fake: Any, make_bench: Any) -> None:
    wrong = {questions()[3].text: "Where is my coat?"}
    found = BENCHMARKS["answers"].run(make_bench(fake(heard=wrong), limit=8))
    assert figures(found)["same_content"].value == figures(found)["same_words"].value == 7 / 8
    assert figures(found)["heard_right"].value == 7 / 8
    assert figures(found)["same_content"].high < 1.0
    item = found.items[3]
    assert (item["heard"], item["same_content"]) == ("Where is my coat?", False)
    assert item["typed_reply"] == f"You asked {questions()[3].text}"
    assert item["spoken_reply"] == "You asked Where is my coat?"


def test_answers_beside_a_peer_that_is_compared_with_itself(fake: Any, make_bench: Any) -> None:
    texts = [question.text for question in questions()]
    log: list[str] = []
    model = fake(heard={texts[3]: "Where is my coat?"}, log=log)
    peer = fake(
        heard=dict.fromkeys(texts[2:4], "Where is my coat?"),
        answer=lambda text, _: f"Well, {text}",
        log=log,
        label="peer",
    )
    found = BENCHMARKS["answers"].run(make_bench(model, peer=peer, peer_name="cascade", limit=8))
    by_key = figures(found)
    for key in ("same_content", "same_words", "heard_right"):
        assert (by_key[key].value, by_key[f"peer_{key}"].value) == (7 / 8, 6 / 8)
        assert by_key[f"{key}_added"].value == pytest.approx(1 / 8)
        # What both heard wrong is no difference, so that the pairs leave one question in eight.
        assert by_key[f"{key}_added"].low == 0.0
        assert by_key[f"{key}_added"].high <= 3 / 8
    more = [x["overlap"] - x["peer"]["overlap"] for x in found.items]
    assert by_key["overlap_added"].value == pytest.approx(sum(more) / 8)
    item = found.items[2]
    assert (item["heard"], item["same_content"]) == (texts[2], True)
    assert (item["peer"]["heard"], item["peer"]["same_content"]) == ("Where is my coat?", False)
    assert item["peer"]["typed_reply"] == f"Well, {texts[2]}"
    assert (log.count("fake typed"), log.count("peer typed")) == (8, 8)
    assert found.settings["peer"] == "cascade"
    assert not any("peer" in x for x in BENCHMARKS["answers"].run(make_bench(fake(), limit=2)).items)


# -- transcribe ---------------------------------------------------------------------------------


def test_transcribe_counts_words_beside_a_recogniser(fake: Any, make_bench: Any) -> None:
    first = questions()[0]
    bench = make_bench(fake(heard={first.text: "What is the capital of Spain?"}), limit=4)
    found = BENCHMARKS["transcribe"].run(bench)
    words = sum(len(q.text.split()) for q in questions(4))
    thes = sum(q.text.split().count("the") for q in questions(4))
    assert figures(found)["wer"].value == pytest.approx(1 / words)
    assert figures(found)["wer_alone"].value == pytest.approx(thes / words)
    assert figures(found)["wer_added"].value == pytest.approx((1 - thes) / words)
    assert found.settings["reference"] == "text"


def test_transcribe_by_the_judge_where_there_is_no_text(fake: Any, make_bench: Any) -> None:
    without = Manifest(replace(q.utterance, text=None) for q in questions(4))
    bench = make_bench(fake(), wrong={"the": "one"}, data=without)
    found = BENCHMARKS["transcribe"].run(bench)
    thes = sum(q.text.split().count("the") for q in questions(4))
    assert thes
    assert figures(found)["wer"].value == pytest.approx(thes / sum(len(q.text.split()) for q in questions(4)))
    assert found.settings["reference"] == "judge"
    assert any("judge hears" in note for note in found.notes)


def test_transcribe_leaves_out_what_is_long(fake: Any, make_bench: Any, tmp_path: Path) -> None:
    long = Utterance(
        "long", Audio(0.1 * np.ones(16_000 * 11, np.float32), 16_000).save(tmp_path / "x.wav"), duration=11
    )
    found = BENCHMARKS["transcribe"].run(make_bench(fake(), data=Manifest([long, questions()[0].utterance])))
    assert [x["id"] for x in found.items] == ["question-01"]
    assert found.settings["data"]["given"] == 2
    with pytest.raises(DataError, match="None of 1 utterances lasts at most 10 s"):
        BENCHMARKS["transcribe"].run(make_bench(fake(), data=Manifest([long])))


# -- say and latency ----------------------------------------------------------------------------


def test_say_judges_sentences_and_the_replies_that_were_made(fake: Any, make_bench: Any) -> None:
    model = fake()
    bench = make_bench(model, wrong={"Paris.": "Berlin."}, limit=5)
    answers = BENCHMARKS["answers"].run(bench)
    before = len(model.log)
    found = BENCHMARKS["say"].run(bench)
    assert len(model.log) == before
    words = [x["words"] for x in found.items[:5]]
    # One word of the first sentence, and all of the one that it would not say.
    assert figures(found)["wer"].value == pytest.approx((1 + words[4]) / sum(words))
    assert found.items[4]["failure"] == "It does not say that. Ask another."
    assert found.items[4]["ratings"] is None
    assert figures(found)["ovrl"].n == 4
    assert figures(found)["replies_wer"].value == 0.0
    assert [x["text"] for x in found.items[5:]] == [x["spoken_reply"] for x in answers.items]


def test_latency_beside_a_peer(fake: Any, make_bench: Any) -> None:
    log: list[str] = []
    model, peer = fake(log=log), fake(log=log, label="peer", ms=lambda _: 400.0)
    found = BENCHMARKS["latency"].run(make_bench(model, peer=peer, peer_name="cascade", limit=4))
    by_key = figures(found)
    assert (by_key["ratio"].value, by_key["ratio"].low, by_key["ratio"].high) == (0.25, 0.25, 0.25)
    assert (by_key["first_sound"].value, by_key["peer_first_sound"].value) == (100.0, 400.0)
    assert [by_key[k].value for k in ("encode", "first_token", "first_audio")] == [25.0, 25.0, 50.0]
    seconds = sum(x["seconds"] for x in found.items)
    assert by_key["rtf"].value == pytest.approx(4 * 0.2 / seconds)
    # One of each to warm up, and then in turn, each first as often as the other.
    one, other = "fake spoken", "peer spoken"
    assert log == [one, other, one, other, other, one, one, other, other, one]


def test_latency_leaves_out_what_was_not_understood(fake: Any, make_bench: Any) -> None:
    first = questions()[0].text
    quick = fake(answer=lambda text, _: UNCLEAR if text == first else "It is so.")
    found = BENCHMARKS["latency"].run(make_bench(quick, limit=3))
    assert len(found.items) == 2
    assert found.notes == ["1 of 3 questions were not understood, and are left out"]
    with pytest.raises(ConfigError, match="says nothing aloud, or understood no question"):
        BENCHMARKS["latency"].run(make_bench(fake(answer=lambda *_: UNCLEAR), limit=2))


# -- memory, turns ------------------------------------------------------------------------------


def test_memory_is_that_of_the_new_process_alone() -> None:
    held = np.ones(120_000_000)  # 960 MB
    peak = peak_of(["--version"])
    assert 10e6 < peak < 700e6
    assert held[-1] == 1.0
    with pytest.raises(ConfigError, match=r"lalia fetch fails .*no weights named 'whisper-huge'"):
        peak_of(["fetch", "whisper-huge"])


def test_turns_finds_what_each_turn_adds(fake: Any, make_bench: Any) -> None:
    found = BENCHMARKS["turns"].run(make_bench(fake(ms=lambda turn: 1000.0 if turn == 1 else 100.0 + 5 * turn)))
    assert len(found.items) == 20
    growth = figures(found)["latency_slope"]
    assert (growth.value, growth.low, growth.high) == pytest.approx((5.0, 5.0, 5.0))
    assert math.isfinite(figures(found)["memory_slope"].value)


# -- tone ---------------------------------------------------------------------------------------


def shouted(text: str, sound: Audio | None) -> str:
    loud = sound is not None and float(sound.samples.abs().max()) > 0.97
    return "Do not shout." if loud else f"You said {text}"


def test_tone_finds_a_model_that_hears_it(fake: Any, make_bench: Any) -> None:
    found = BENCHMARKS["tone"].run(make_bench(fake(answer=shouted), limit=3))
    others = [x for x in found.items if x["delivery"] != "neutral"]
    assert {x["delivery"] for x in others if x["differs"]["spoken"]} == {"loud"}
    assert figures(found)["beyond_words"].value == pytest.approx(1 / 7)
    assert figures(found)["differ_words"].value == 0.0
    assert found.settings["p"]["words alone"] == 2 / 2**3


def test_tone_does_not_count_other_words_or_what_was_not_understood(fake: Any, make_bench: Any) -> None:
    sound = dict(deliveries(1))
    model = fake()
    model.known[_print(sound["whispered"])] = "Quite another sentence."
    model.known[_print(sound["quiet"])] = "Mumble."
    model.answer = lambda text, _: UNCLEAR if text == "Mumble." else f"You said {text}"
    found = BENCHMARKS["tone"].run(make_bench(model, limit=1))
    assert figures(found)["differ"].value == figures(found)["differ_words"].value == pytest.approx(1 / 6)
    assert figures(found)["beyond_words"].value == 0.0


def test_tone_beside_a_peer(fake: Any, make_bench: Any) -> None:
    bench = make_bench(fake(answer=shouted), peer=fake(), peer_name="cascade", limit=3)
    found = BENCHMARKS["tone"].run(bench)
    assert figures(found)["peer_beyond_words"].value == 0.0
    assert found.settings["p"]["cascade"] == 2 / 2**3


def _print(audio: Audio) -> str:
    from lalia.evaluation.memory import fingerprint

    return fingerprint(audio)


# -- robustness ---------------------------------------------------------------------------------


def test_hard_sounds_are_what_they_are_called() -> None:
    sounds = {s.name: s for s in hard_sounds()}
    assert all(bool(s.audio.samples.isfinite().all()) for s in sounds.values())
    assert sounds["silence"].audio.samples.abs().max() == 0
    assert sounds["a monologue"].audio.seconds == 300.0
    assert 0.003 < sounds["very quiet, question-01"].audio.samples.abs().max() < 0.005
    assert (sounds["clipped, question-01"].audio.samples.abs() == 1).float().mean() > 0.1
    again = {s.name: s for s in hard_sounds()}
    assert all(bool((again[n].audio.samples == s.audio.samples).all()) for n, s in sounds.items())


def test_robustness_tells_answers_from_refusals_and_crashes(fake: Any, make_bench: Any) -> None:
    model = fake()
    outcomes: list[str] = []

    def transcribe(audio: Audio) -> str:
        outcomes.append("")
        audio.check("the recording")
        if len(outcomes) == 1:
            raise ZeroDivisionError("oh")
        return "noise" if len(outcomes) <= 3 else "words"

    model.transcribe = transcribe
    model.answer = lambda text, _: UNCLEAR if text == "noise" else "Well."
    found = BENCHMARKS["robustness"].run(make_bench(model))
    assert [x["outcome"] for x in found.items[:5]] == ["crashed", "unclear", "unclear", "refused", "answered"]
    assert found.items[0]["reason"] == "ZeroDivisionError: oh"
    assert "silent" in found.items[3]["reason"]
    n = len(found.items)
    assert figures(found)["survived"].value == (n - 1) / n
    assert figures(found)["declined"].value == 3 / 5
    assert figures(found)["answered"].value == 1.0
