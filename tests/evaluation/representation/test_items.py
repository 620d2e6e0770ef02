import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalia.data import Word
from lalia.errors import ConfigError, DataError, OutputError
from lalia.evaluation.representation import Item, items_of, load_items, save_items

HEAD = "#file onset offset #phone prev-phone next-phone speaker\n"

names = st.text(st.characters(exclude_categories=("Z", "C")), min_size=1, max_size=5)
times = st.floats(0, 1000, allow_subnormal=False)


@st.composite
def items(draw):
    onset = draw(times)
    return Item(draw(names), onset, onset + draw(st.floats(0.01, 5)), *(draw(names) for _ in range(4)))


def test_reads_what_zerospeech_writes(tmp_path):
    path = tmp_path / "a.item"
    path.write_text(HEAD + "6295-244435-0009 0.2925 0.4725 IH L NG 6295\n\nf 1 2 A SIL B 7\n")
    assert load_items(path) == [
        Item("6295-244435-0009", 0.2925, 0.4725, "IH", "L", "NG", "6295"),
        Item("f", 1.0, 2.0, "A", "SIL", "B", "7"),
    ]


@given(st.lists(items(), min_size=1, max_size=5))
def test_round_trip(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("items") / "b.item"
    assert load_items(save_items(rows, path)) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 does not name the columns"),
        ("f 0 1 A B C s\n", "line 1 does not name the columns"),
        (HEAD, "lists no items"),
        (HEAD + "f 0 1 A B C\n", "line 2: There are 6 columns, not 7"),
        (HEAD + "f 0 1 A B C s\nf 0 x A B C s\n", "line 3: '0' to 'x' are not seconds"),
        (HEAD + "f 1 1 A B C s\n", "line 2: It lasts from 1.0 to 1.0 s"),
        (HEAD + "f -1 1 A B C s\n", "line 2: It lasts from -1.0 to 1.0 s"),
        (HEAD + "f nan 1 A B C s\n", "line 2: It lasts from nan to 1.0 s"),
        (HEAD + "f 0 inf A B C s\n", "line 2: It lasts from 0.0 to inf s"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "bad.item"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_items(path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_items(tmp_path / "none.item")
    with pytest.raises(OutputError):
        save_items([Item("f", 0, 1, "A", "B", "C", "s")], tmp_path / "none" / "a.item")


@pytest.mark.parametrize("name", ["", "a b", " a", "a\n"])
def test_names_that_would_part_columns(tmp_path, name):
    with pytest.raises(DataError, match="is no name of one word"):
        save_items([Item("f", 0, 1, name, "B", "C", "s")], tmp_path / "a.item")


def test_items_of_an_alignment():
    phones = {"f": [Word(p, i / 10, (i + 1) / 10) for i, p in enumerate(["pau", "b", "a", "t", "s"])]}
    speakers = {"f": "anna"}
    assert items_of(phones, speakers, silences=["pau"]) == [
        Item("f", 0.1, 0.4, "a", "b", "t", "anna"),
        Item("f", 0.2, 0.5, "t", "a", "s", "anna"),
    ]
    assert items_of(phones, speakers, stretch="phone")[0] == Item("f", 0.1, 0.2, "b", "pau", "a", "anna")
    assert items_of({"f": phones["f"][:2]}, speakers) == []
    with pytest.raises(DataError, match="Nobody is named who speaks in 'f'"):
        items_of(phones, {})
    with pytest.raises(ConfigError, match="Items of 'biphone'"):
        items_of(phones, speakers, stretch="biphone")
