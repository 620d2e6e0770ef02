"""How a written text is read out: figures, signs and abbreviations as words. English.

Everything is decided word by word (a word is what stands between spaces), so that a text can be read while it is being
written: what comes later changes nothing that was read before.
"""

import re
import unicodedata
from collections.abc import Callable

__all__ = ["spoken_form", "spoken_word"]

_ABBREVIATIONS = {
    "dr.": "doctor",
    "e.g.": "for example",
    "etc.": "et cetera",
    "i.e.": "that is",
    "jr.": "junior",
    "mr.": "mister",
    "mrs.": "missis",
    "ms.": "miz",
    "no.": "number",
    "prof.": "professor",
    "sr.": "senior",
    "st.": "saint",
    "vs.": "versus",
}
_UNITS = {
    "cm": "centimeters",
    "ft": "feet",
    "g": "grams",
    "ghz": "gigahertz",
    "hz": "hertz",
    "kg": "kilograms",
    "khz": "kilohertz",
    "km": "kilometers",
    "km/h": "kilometers per hour",
    "lbs": "pounds",
    "m": "meters",
    "mb": "megabytes",
    "mg": "milligrams",
    "mm": "millimeters",
    "mph": "miles per hour",
    "ms": "milliseconds",
    "°c": "degrees celsius",
    "°f": "degrees fahrenheit",
}
_SIGNS = {
    "%": "percent",
    "&": "and",
    "+": "plus",
    "=": "equals",
    "@": "at",
    "°": "degrees",
    "/": "slash",
    "#": "number",
}
_CURRENCIES = {
    "$": ("dollar", "dollars", "cents"),
    "£": ("pound", "pounds", "pence"),
    "€": ("euro", "euros", "cents"),
}  # fmt: skip
_SCALES = {"k": "thousand", "m": "million", "bn": "billion", "b": "billion"}

_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")
_MONEY = re.compile(rf"([$£€])({_NUMBER.pattern})(k|m|bn|b)?", re.IGNORECASE)
_TIME = re.compile(r"(\d{1,2}):(\d{2})(?:(am|pm))?", re.IGNORECASE)
_ORDINAL = re.compile(r"(\d[\d,]*)(st|nd|rd|th)", re.IGNORECASE)
_DECADE = re.compile(r"'?(\d{2,4})'?s")
_UNIT = "|".join(map(re.escape, sorted(_UNITS, key=len, reverse=True)))
_MEASURE = re.compile(rf"([-−]?)({_NUMBER.pattern})({_UNIT})", re.IGNORECASE)
_FRACTION = re.compile(r"(\d+)/(\d+)")
_RANGE = re.compile(rf"({_NUMBER.pattern})[-–]({_NUMBER.pattern})")
_EDGES = re.compile(r"^([(\[{\"'“‘*_]*)(.*?)([)\]}\"'”’*_]*[.,;:!?…]*[)\]}\"'”’*_]*)$", re.DOTALL)
_ACRONYM = re.compile(r"(?:[A-Z]\.)+[A-Z]\.?|[B-DF-HJ-NP-TV-Z]{2,5}|AI|CIA|DNA|EU|FBI|IQ|IT|PIN|UFO|UK|UN|US|USA")


def spoken_form(text: str) -> str:
    """A text as it is read out: words without figures, with their punctuation.

    >>> spoken_form("It weighs 2.5 kg, costs $3.50 and was made in 1984.")
    'It weighs two point five kilograms, costs three dollars and fifty cents and was made in nineteen eighty-four.'
    """
    words = text.split()
    return " ".join(spoken for i, word in enumerate(words) if (spoken := spoken_word(word, words[i - 1] if i else "")))


def spoken_word(word: str, before: str = "") -> str:
    """A word as it is read out, with its punctuation; it may become several, or none.

    :param before: the word before it, as it was written: after a figure, "kg" is a unit.
    """
    word = unicodedata.normalize("NFKC", word)
    if word.lower() in _ABBREVIATIONS:
        return _ABBREVIATIONS[word.lower()]
    edges = _EDGES.match(word)
    assert edges is not None, "every word matches"
    _, core, end = edges.groups()
    end = "".join(dict.fromkeys(c for c in end.replace("…", ".") if c in ".,;:!?"))
    said = _core(core, before.strip(".,;:!?()[]"))
    return said + end if any(c.isalnum() for c in said) else ""


def _core(word: str, before: str) -> str:
    lower = word.lower()
    if lower in _UNITS and _NUMBER.fullmatch(before):
        return _UNITS[lower]
    if word in _SIGNS:
        return _SIGNS[word]
    if not any(c.isdecimal() for c in word):
        return _without_figures(word)
    for pattern, read in _READERS:
        if match := pattern.fullmatch(word):
            return read(*match.groups())
    # "B2B", "covid-19", "3x": the figures among the letters, each run by itself.
    return " ".join(_number(p) if p[0].isdecimal() else _without_figures(p) for p in re.findall(r"\d+|[^\d\W]+", word))


def _without_figures(word: str) -> str:
    if _ACRONYM.fullmatch(word):
        return " ".join(word.replace(".", "").lower())
    word = "".join(f" {_SIGNS[c]} " if c in _SIGNS else c for c in word)
    return " ".join(word.replace("’", "'").replace("—", ", ").replace("–", ", ").split())


_SMALL_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS_WORDS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL, _TENS = _SMALL_WORDS.split(), _TENS_WORDS.split()
_GROUPS = ("", " thousand", " million", " billion", " trillion", " quadrillion")
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def _cardinal(digits: str) -> str:
    """Figures, up to eighteen of them, as a number in words (American: without "and")."""
    value = int(digits)
    said: list[str] = []
    for group in _GROUPS:
        value, below = divmod(value, 1000)
        if below:
            said.insert(0, _hundreds(below) + group)
    return " ".join(said) or _SMALL[0]


def _hundreds(value: int) -> str:
    hundreds, below = divmod(value, 100)
    said = [f"{_SMALL[hundreds]} hundred"] if hundreds else []
    if 0 < below < 20:
        said.append(_SMALL[below])
    elif below:
        said.append(_TENS[below // 10] + (f"-{_SMALL[below % 10]}" if below % 10 else ""))
    return " ".join(said)


def _number(text: str) -> str:
    """A number without a unit; four figures without a comma are read as a year."""
    text = text.replace(",", "") if "," in text else _year(text)
    if not text[0].isdecimal():
        return text
    whole, _, fraction = text.partition(".")
    if (len(whole) > 1 and whole[0] == "0") or len(whole) > 18:
        return " ".join(_cardinal(d) for d in text if d.isdecimal())
    return _cardinal(whole) + (" point " + " ".join(_cardinal(d) for d in fraction) if fraction else "")


def _year(text: str) -> str:
    if not re.fullmatch(r"1[1-9]\d\d|20[1-9]\d", text):
        return text
    first, last = text[:2], text[2:]
    if last == "00":
        return f"{_cardinal(first)} hundred"
    return f"{_cardinal(first)} {'oh ' if last[0] == '0' else ''}{_cardinal(str(int(last)))}"


def _money(sign: str, amount: str, scale: str | None) -> str:
    one, many, parts = _CURRENCIES[sign]
    amount = amount.replace(",", "")
    if scale:
        return f"{_plain(amount)} {_SCALES[scale.lower()]} {many}"
    whole, _, fraction = amount.partition(".")
    said = f"{_cardinal(whole)} {one if whole == '1' else many}"
    if len(fraction) == 2 and int(fraction):
        return f"{said} and {_cardinal(str(int(fraction)))} {parts}" if int(whole) else f"{_cardinal(fraction)} {parts}"
    return said if not fraction or not int(fraction) else f"{_plain(amount)} {many}"


def _plain(text: str) -> str:
    whole, _, fraction = text.replace(",", "").partition(".")
    return _cardinal(whole) + (" point " + " ".join(_cardinal(d) for d in fraction) if fraction else "")


def _time(hours: str, minutes: str, half: str | None) -> str:
    said = _cardinal(str(int(hours)))
    if int(minutes):
        said += f" {'oh ' if int(minutes) < 10 else ''}{_cardinal(str(int(minutes)))}"
    elif not half:
        said += " o'clock"
    return said + (f" {' '.join(half.lower())}" if half else "")


def _ordinal(digits: str, _: str) -> str:
    said = _cardinal(digits.replace(",", ""))
    at = max(said.rfind(" "), said.rfind("-")) + 1
    last = said[at:]
    return said[:at] + _ORDINALS.get(last, f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")


def _decade(digits: str) -> str:
    said = _number(digits)
    return f"{said[:-1]}ies" if said.endswith("y") else f"{said}s"


_READERS: tuple[tuple[re.Pattern[str], Callable[..., str]], ...] = (
    (_MONEY, _money),
    (_TIME, _time),
    (_ORDINAL, _ordinal),
    (_DECADE, _decade),
    (re.compile(rf"({_NUMBER.pattern})%"), lambda n: f"{_plain(n)} percent"),
    (re.compile(rf"[-−]({_NUMBER.pattern})"), lambda n: f"minus {_plain(n)}"),
    (_RANGE, lambda a, b: f"{_number(a)} to {_number(b)}"),
    (_MEASURE, lambda sign, n, unit: f"{'minus ' if sign else ''}{_plain(n)} {_UNITS[unit.lower()]}"),
    (_FRACTION, lambda a, b: f"{_cardinal(a)} over {_cardinal(b)}"),
    (re.compile(rf"({_NUMBER.pattern})"), _number),
)
