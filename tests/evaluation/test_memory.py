import json
from pathlib import Path

import pytest

from lalia.audio import Audio
from lalia.errors import DataError
from lalia.evaluation.memory import Remembered, fingerprint


def speech(tone_speech, n: int) -> list[Audio]:
    return [tone_speech([400 + 100 * i, 500, 600])[0] for i in range(n)]


def test_asks_once_and_keeps_the_order(tmp_path: Path, tone_speech, listener) -> None:
    rows = speech(tone_speech, 5)
    expected = listener(rows)
    listener.asked = 0
    remembered = Remembered(listener, tmp_path / "cache", batch_size=2)
    assert remembered([rows[3], rows[1]]) == [expected[3], expected[1]]
    assert remembered([*rows, rows[0]]) == [*expected, expected[0]]
    assert listener.asked == 5
    assert Remembered(listener, tmp_path / "cache")(rows) == expected
    assert listener.asked == 5


def test_what_was_done_before_a_crash_is_kept(tmp_path: Path, tone_speech, listener) -> None:
    rows = speech(tone_speech, 6)
    seen = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Remembered(listener, tmp_path, batch_size=2, progress=stop)(rows)
    assert seen == [(2, 6), (4, 6)]
    listener.asked = 0
    Remembered(listener, tmp_path)(rows)
    assert listener.asked == 2


def test_alignments(tmp_path: Path, tone_speech, listener) -> None:
    audio = speech(tone_speech, 1)[0]
    remembered = Remembered(listener, tmp_path)
    first = remembered.align(audio, "a b")
    assert first == listener.align(audio, "a b")
    asked = listener.asked
    assert Remembered(listener, tmp_path).align(audio, "a b") == first
    assert listener.asked == asked
    assert remembered.align(audio, "a b c") != first


def test_another_version_has_another_memory(tmp_path: Path, tone_speech, listener) -> None:
    rows = speech(tone_speech, 1)
    Remembered(listener, tmp_path)(rows)
    listener.version = "2"
    asked = listener.asked
    Remembered(listener, tmp_path)(rows)
    assert listener.asked == asked + 1
    assert len(list(tmp_path.glob("*.json"))) == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"texts": {}}'])
def test_a_damaged_memory_is_told(tmp_path: Path, listener, content: str) -> None:
    remembered = Remembered(listener, tmp_path)
    remembered.path.write_text(content)
    with pytest.raises(DataError, match=r"Remove it\."):
        Remembered(listener, tmp_path)


def test_fingerprint_is_of_the_sound(tone_speech) -> None:
    audio = speech(tone_speech, 1)[0]
    longer = Audio.batch([audio, tone_speech([400] * 9)[0]])
    assert fingerprint(longer) == fingerprint(audio)
    assert fingerprint(Audio(audio.samples, 8000)) != fingerprint(audio)
    assert fingerprint(Audio(audio.samples * 0.999, audio.sample_rate)) != fingerprint(audio)


def test_the_file_says_whose_it_is(tmp_path: Path, tone_speech, listener) -> None:
    remembered = Remembered(listener, tmp_path)
    remembered(speech(tone_speech, 1))
    data = json.loads(remembered.path.read_text())
    assert (data["name"], data["version"]) == ("listens", "1")
