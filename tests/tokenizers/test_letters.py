"""How a text is spelled for a speech decoder, and phones with their times."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.data import Word
from lalia.errors import ConfigError, DataError
from lalia.tokenizers import Letters, Phones
from lalia.tokenizers.spoken_form import spoken_form


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("It weighs 2.5 kg.", "It weighs two point five kilograms."),
        ("In 1984, not 2005 or 1900!", "In nineteen eighty-four, not two thousand five or nineteen hundred!"),
        ("108,000 people (67,000 mph)", "one hundred eight thousand people sixty-seven thousand miles per hour"),
        ("$3.50, $1 and £0.50", "three dollars and fifty cents, one dollar and fifty pence"),
        ("$2.3m", "two point three million dollars"),
        ("on the 21st at 10:05pm", "on the twenty-first at ten oh five p m"),
        ("12-15 people, 50% of them", "twelve to fifteen people, fifty percent of them"),
        ("Dr. Smith vs. the U.S. FBI", "doctor Smith versus the u s. f b i"),
        ("-5°C in the 1990s", "minus five degrees celsius in the nineteen nineties"),
        ("**Bold**, “quoted” & it’s 007.", "Bold, quoted and it's zero zero seven."),
        ("covid-19 3/4", "covid nineteen three over four"),
        ("(nothing) ... ---", "nothing"),
        ("", ""),
    ],
)  # fmt: skip
def test_figures_and_signs_are_read_out(written: str, spoken: str) -> None:
    assert spoken_form(written) == spoken


@given(st.text(max_size=60))
def test_any_text_has_a_spoken_form_without_figures(text: str) -> None:
    letters = Letters.Config().build()
    assert not any(c in "0123456789" for c in letters.decode(letters.encode(text))[0])


@given(st.text(alphabet="abc 12.,$% é", max_size=40), st.lists(st.integers(0, 40), max_size=5))
def test_a_text_in_pieces_is_spelled_as_the_whole(text: str, cuts: list[int]) -> None:
    letters = Letters.Config().build()
    stream, edges = letters.stream(), [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    pieces = [stream.push(text[a:b]) for a, b in pairwise(edges)] + [stream.push("", final=True)]
    ids = torch.cat([p.values[0, 0] for p in pieces])
    assert torch.equal(ids, letters.encode(text).values[0, 0])


def test_every_word_begins_with_a_space() -> None:
    letters = Letters.Config().build()
    batch = letters.encode(["A café, no?", "1!"])
    assert batch.lengths.tolist() == [12, 5]
    assert letters.decode(batch) == ["a cafe, no?", "one!"]
    assert batch.values[0, 0, 0] == letters.config.alphabet.index(" ")
    with pytest.raises(ConfigError, match="Begin with a space"):
        Letters.Config(alphabet="ab ")


def test_phones_last_as_long_as_the_utterance() -> None:
    phones = Phones.Config().build()
    told = [Word("h", 0.11, 0.2), Word("?x", 0.2, 0.21), Word("ˈ", 0.2, 0.3), Word("a", 0.3, 0.52), Word("ɪ", 0.9, 1.3)]
    made = phones.encode(told, 1.25)
    assert phones.decode(made) == [" hˈaɪ"]
    # Silence before; what is not known, and the gap, belong to the phone before; the last one goes to the end.
    assert made.durations is not None
    assert made.durations[0].tolist() == [6, 4, 5, 30, 18]
    assert int(made.durations.sum()) == 63
    assert phones.decode(phones.spell("həlˈoʊ")) == [" həlˈoʊ"]
    with pytest.raises(DataError, match="no phones that are known"):
        phones.encode([Word("%", 0.0, 1.0)], 1.0)
    with pytest.raises(ConfigError, match="name each once"):
        Phones.Config(symbols=" aa")
