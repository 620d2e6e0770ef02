import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalia.evaluation.downstream import read_choice, read_letter, read_yes_no, token_set_match

CHOICES = ["Man", "Woman", "Child", "Robot"]


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("C", "C"), ("c", "C"), ("(c)", "C"), ("c.", "C"), ("C. Child", "C"), ("**C**", "C"), ("\\boxed{C}", "C"),
        ("Answer: C", "C"), ("Answer: C.", "C"), ("The answer is C.", "C"), ("the answer is (c).", "C"),
        ("The correct answer is **B**", "B"), ("The correct option is B) Woman", "B"), ("Answer C", "C"),
        ("The answer to the question is: **C**", "C"), ("The answer is B because she speaks", "B"),
        ("answer is option d", "D"), ("I would choose (D) because", "D"), ("I'd say B.", "B"), ("It's A.", "A"),
        ("答案是C", "C"), ("应该选B。", "B"), ("<|im_start|>C<|im_end|>", "C"), ("Option B is the one", "B"),
        ("Option A is wrong, so the answer is D", "D"), ("A\n\nIt is a man's voice", "A"),
        # None of these says which.
        ("", None), ("The answer is a dog", None), ("A child is speaking", None), ("I am not sure", None),
        ("Answer: C or D", None), ("Answer: A or B", None), ("The answer is A. Wait, the answer is B.", None),
        ("Options A and B", None), ("Vitamin C.", None), ("The answer is I am not sure", None), ("E", None),
        ("Answer: F", None), ("None of them", None), ("answer a question", None),
    ],
)  # fmt: skip
def test_letters(reply: str, letter: str | None) -> None:
    assert read_letter(reply, 4) == (None if letter is None else "ABCD".index(letter))


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("Child", 2), ("It is a child.", 2), ("I think it is a woman", 1), ("C. Child", 2), ("D) Robot, not a man", 3),
        ("Answer: C", 2), ("robot!", 3), ("It is not a man but a child", 2), ("Based on the audio, B. Woman.", 1),
        ("Man or woman", None), ("It is not a child", None), ("children", None), ("A. Woman", None), ("Unclear", None),
        ("neither a man nor a robot", None), ("human", None),
    ],
)  # fmt: skip
def test_choices(reply: str, choice: int | None) -> None:
    assert read_choice(reply, CHOICES) == choice


def test_choices_within_others_and_choices_that_are_letters() -> None:
    assert read_choice("An old man", ["Man", "Old man"]) == 1
    assert read_choice("A man", ["Man", "Old man"]) == 0
    assert read_choice("It is a C#", ["A", "C", "C#"]) is None  # the article may be the note
    assert read_choice("It sounds like C#", ["A", "C", "C#"]) == 2
    assert read_choice("a", ["B", "A", "C"]) == 1  # the note, not the place
    assert read_choice("3.5", ["3", "3.5", "5"]) == 1


def test_chords_and_equal_choices() -> None:
    chords = ["C major", "G major", "D major", "A minor"]
    assert read_choice("The answer is C major.", chords) == 0
    assert read_choice("Answer: C", chords) == 2
    assert read_choice("C. D major", chords) == 2
    # A set of questions that is in use has such.
    assert read_choice("C", ["thirteen", "twenty", "thirteen"]) == 0
    assert read_choice("I counted thirteen", ["thirteen", "twenty", "thirteen"]) == 0
    assert read_choice("A", ["Yes", "No", "Not sure"]) == 0


@given(st.text(alphabet="ABCD abcd.:()ors", max_size=14))
def test_where_two_letters_stand_alone_none_is_taken_from_the_middle(reply: str) -> None:
    found = read_letter(reply, 4)
    assert found is None or "ABCD"[found] in re.findall(r"[A-D]", reply.upper())


def test_yes_and_no() -> None:
    assert read_yes_no("Yes, it is. There is no doubt") is True
    assert read_yes_no("The answer is no.") is False
    assert read_yes_no("yes or no?") is True
    assert read_yes_no("It is neither yes nor no") is None
    assert read_yes_no("perhaps") is None


def test_token_sets() -> None:
    choices = ["A woman", "A child", "An adult man"]
    assert token_set_match("It is a woman speaking", "A woman", choices)
    assert not token_set_match("woman", "A woman", choices)  # "a" is missing
    assert not token_set_match("A woman, not a child", "A woman", choices)
    assert not token_set_match("(A)", "A woman", choices)
    assert not token_set_match("", "A woman", choices)
    assert token_set_match("the note a", "A", ["A", "B"])
