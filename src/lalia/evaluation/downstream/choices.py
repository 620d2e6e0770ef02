"""Which of several choices a reply gives. It is read, never guessed: where it does not say, there is none."""

import re
import unicodedata
from collections.abc import Sequence

__all__ = ["LETTERS", "read_choice", "read_letter", "read_yes_no", "token_set_match"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_VERB = r"(?:is|would be|should be|must be|will be|could be|=|:)"
_ANSWER = re.compile(
    rf"\b(?:answer|choice|option|选项|答案)\b[^\w\n(]*(?:to [^.\n]{{1,60}}? )?{_VERB}[\s:]*"
    rf"(?:(?:option|choice|letter|answer)\s+)?[(\[\"']*([A-Za-z])(?P<after>.?)(?P<rest>.?)",
    re.IGNORECASE,
)
_CHINESE = re.compile(
    r"(?:答案|选项|选择|选)\s*(?:应该|就)?\s*(?:是|为|选)?\s*[:：]?\s*(?:选项)?\s*[(\[（\"'‘“]*([A-Za-z])(?![A-Za-z])"
)
_CHOOSE = re.compile(
    r"\b(?:choose|select|pick|go with|goes? for)\s+(?:option|choice|answer|letter)?\s*[(\[\"']*([A-Z])(?![\w'])"
)
_SAID = re.compile(
    r"\b(?:[Ii]t's|[Ii]t is|[Tt]hat's|[Tt]hat is|I'd say|I would say|I think)[\s:]+"
    r"[(\[\"']*([A-Z])(?=[.,:;)\]\"'!]|\s*$)"
)
_OR = re.compile(r"\W{0,3}\s*(?:or|and|/|&|或)\s*(?:(?:option|choice)\s+)?[(\[\"']*([A-Za-z])(?![\w'])")
_NAMED = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+[(\[\"']*(?:([A-Z])(?![\w'])|([a-z])(?=[.,:;)\]\"'!]|\s*$))"
)
_BRACKETED = re.compile(r"(?<!\w)[(\[]([A-Za-z])[)\]]")
_LEADING = re.compile(r"\s*[(\[\"']*([A-Za-z])\s*(?:[.:,)\]、：）]|$|\n)")
_MARKUP = re.compile(
    r"\\(?:boxed|text|textbf|mathbf|mathrm)\s*\{|[\\${}*`_]|^\s*#+\s|<\|[^|]*\|>|</?s>|^\s*<\d>", re.MULTILINE
)
_NEGATIONS = frozenset(
    ("not", "isn't", "aren't", "wasn't", "no", "neither", "nor", "never", "without", "than", "cannot")
)
_BEFORE = 3
"""Words before an option's text among which a negation takes it back."""


def read_letter(reply: str, choices: int) -> int | None:
    """The place of the one letter that a reply gives as its answer; None where it gives none, or several.

    What says most decides alone: "the answer is C", "答案是C", "I would choose C", "it's C."; else a reply that is or
    begins with a letter ("C", "(c)", "C. Paris"); else "option C" or "(C)" anywhere. A lower-case letter in a sentence,
    and the article A, are letters only where punctuation or the end of the line follows. "C or D" is several.
    """
    text = _plain(reply)
    known = LETTERS[:choices]
    for places in (_stated(text), _leading(text), _mentioned(text)):
        letters = {letter.upper() for letter in places if letter.upper() in known}
        if letters:
            return known.index(letters.pop()) if len(letters) == 1 else None
    return None


def _stated(text: str) -> list[str]:
    found = []
    for match in (m for pattern in (_CHINESE, _CHOOSE, _SAID) for m in pattern.finditer(text)):
        other = _OR.match(text, match.end(1))
        found += [match.group(1), *([other.group(1)] if other else [])]
    for match in _ANSWER.finditer(text):
        letter, after, rest = match.group(1, "after", "rest")
        if other := _OR.match(text, match.end(1)):
            found += [letter, other.group(1)]
            continue
        # "The answer is a dog", "is Beijing" and "is I'm" name no letter; "is C because" does.
        ends = not after or not (after.isalnum() or after == "'" or (after == " " and rest.isalnum()))
        if ends or (after == " " and letter.isupper() and letter not in "AI"):
            found.append(letter)
    return found


def _leading(text: str) -> list[str]:
    match = _LEADING.match(text)
    return [match.group(1)] if match else []


def _mentioned(text: str) -> list[str]:
    return [*("".join(letters) for letters in _NAMED.findall(text)), *_BRACKETED.findall(text)]


def read_choice(reply: str, choices: Sequence[str], *, letters: bool = True) -> int | None:
    """The place of the one choice that a reply gives, by its letter or its text; None where it does not say.

    A reply that is a choice's text and nothing else is that. Then its letter decides; a letter whose text the reply
    does not have while it has another's is a contradiction. Without a letter, exactly one choice's words must be in
    the reply, in a row and not denied; a text that is part of a longer one that is there ("man" in "old man") does not
    count. Where choices begin with letters themselves ("C major"), text goes before letters, and where one is a letter
    (a note), letters are only that. Of choices with the same text, which suites have, the first stands for all.

    :param choices: their texts; empty where only the letters are known.
    :param letters: whether choices had letters when they were shown; else texts alone are looked for.
    """
    texts = [_words(choice) for choice in choices]
    said = _words(_plain(reply))
    if said in texts and said:
        return texts.index(said)
    found = _found(said, texts)
    begins = [text[0] for text in texts if text and len(text[0].rstrip("#")) == 1 and text[0][0].isalpha()]
    notes = any(len(text) == 1 and text[0] in begins for text in texts) or (set(begins) - {"a", "i"} and found)
    if notes or not letters:
        letter = None
    else:
        letter = read_letter(reply, len(choices))
    if letter is None:
        return found.pop() if len(found) == 1 else None
    # Of equal texts, the first; the empty ones are not known to be equal.
    first = texts.index(texts[letter]) if texts[letter] else letter
    return None if found and texts[letter] and first not in found else first


def _found(said: Sequence[str], texts: Sequence[Sequence[str]]) -> set[int]:
    places = [
        (start, start + len(text), i)
        for i, text in enumerate(texts)
        if text
        for start in range(len(said) - len(text) + 1)
        if list(said[start : start + len(text)]) == list(text)
    ]
    return {
        texts.index(texts[i])
        for start, end, i in places
        if not _denied(said, start)
        and not any(a <= start and end <= b and b - a > end - start for a, b, _ in places)
    }  # fmt: skip


def _denied(said: Sequence[str], start: int) -> bool:
    return any(w in _NEGATIONS or w.endswith("n't") for w in said[max(start - _BEFORE, 0) : start])


def read_yes_no(reply: str) -> bool | None:
    """Whether a reply says yes or no: by its first word, or where only one of the two is in it; else None."""
    said = _words(_plain(reply))
    if said and said[0] in ("yes", "no"):
        return said[0] == "yes"
    found = {w for w in said if w in ("yes", "no")}
    return found == {"yes"} if len(found) == 1 else None


def token_set_match(reply: str, answer: str, choices: Sequence[str]) -> bool:
    """The rule of MMAU (its evaluation.py, 110127f), which is none of those above.

    Words as sets, without case: all of the answer's are in the reply, and none that only wrong choices have. So a
    letter alone is wrong, and so is a right answer that is explained in the words of another.
    """
    said, right = _tokens(reply), _tokens(answer)
    wrong = {token for choice in choices if _tokens(choice) != right for token in _tokens(choice)} - right
    return bool(said) and right <= said and not said & wrong


def _tokens(text: str) -> set[str]:
    return set(re.findall(r"\b\w+\b", text.lower()))


def _plain(reply: str) -> str:
    """Without marks of Markdown, LaTeX and chat templates."""
    text = unicodedata.normalize("NFKC", reply).replace("\u2019", "'").replace("\u2018", "'")
    return _MARKUP.sub(" ", text.replace("\u201c", '"').replace("\u201d", '"')).strip()


def _words(text: str) -> list[str]:
    # A sign behind a word belongs to it: C# is not C, nor 5% 5.
    return re.findall(
        r"[^\W_]+(?:['.][^\W_]+)*[#+%°]*", unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    )
