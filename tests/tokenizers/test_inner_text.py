"""Words on a clock: each at its frame, in full, with what announces it."""

import pytest
import torch

from lalia.errors import ConfigError
from lalia.tokenizers import Text, align_text

CLOCK = Text(Text.Config("bytes", vocabulary_size=260, rate=10.0, pad=257, end_of_pad=258))


def aligned(words: list[tuple[str, float]], frames: int) -> list[int]:
    return align_text(CLOCK, [(w, t, t + 0.1) for w, t in words], frames).values[0, 0].tolist()


def test_a_word_begins_where_it_is_said() -> None:
    row = aligned([("ab", 0.3), ("c", 0.95)], 12)
    assert row == [257, 257, 258, *b"ab", 257, 257, 257, 258, *b" c", 257]


def test_a_word_waits_until_the_one_before_is_over() -> None:
    assert aligned([("abcd", 0.0), ("e", 0.1)], 7) == [*b"abcd", *b" e", 257]


def test_what_falls_behind_the_last_frame_is_lost() -> None:
    assert aligned([("abcd", 0.1)], 3) == [258, *b"ab"]
    assert aligned([("a", 0.0), ("b", 9.0)], 3) == [*b"a", 257, 257]
    assert aligned([], 2) == [257, 257]


def test_the_words_are_the_text() -> None:
    words = ["one", " two ", "three"]
    pieces = CLOCK.encode_words(words)
    assert torch.cat(pieces).tolist() == CLOCK.encode("one two three").values[0, 0].tolist()


def test_a_text_without_a_clock_is_refused() -> None:
    with pytest.raises(ConfigError, match="Give it rate and pad"):
        align_text(Text(Text.Config("bytes", vocabulary_size=260)), [], 3)
