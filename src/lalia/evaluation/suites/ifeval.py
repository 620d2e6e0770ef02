"""IFEval (Zhou et al., arXiv:2311.07911): instructions whose following can be verified, all 25 kinds of them.

The rules are those of its verifiers as VoiceBench 5338154 has them, but for these: sentences and words in capitals are
found by rules, not by NLTK's models; keywords are text, not regular expressions; a sign that is no letter is counted
as asked, where the original draws a random letter; and language detection does not depend on chance.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lalia.errors import DataError, MissingDependency
from lalia.evaluation.scored import Counts, Scored, by_id
from lalia.evaluation.statistics import bootstrap, bootstrap_ratio
from lalia.evaluation.suites.items import Item, unique

__all__ = ["DetectLanguage", "detect_language", "follows", "score_ifeval"]

DetectLanguage = Callable[[str], str | None]
"""The ISO 639-1 code of a text's language, or None where it has none."""

_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_ABBREVIATIONS = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Ltd|Co|vs|etc|e\.g|i\.e|[A-Z])\.", re.IGNORECASE)


def detect_language(text: str) -> str | None:
    """The language by langdetect, with a fixed seed.

    :raises MissingDependency: langdetect is not installed.
    """
    try:
        from langdetect import DetectorFactory, LangDetectException, detect
    except ImportError:
        raise MissingDependency("langdetect", "eval") from None
    DetectorFactory.seed = 0
    try:
        return str(detect(text))
    except LangDetectException:
        return None


def follows(
    instruction: str, arguments: Mapping[str, Any], reply: str, *, detect: DetectLanguage = detect_language
) -> bool:
    """Whether a reply follows one instruction. An empty reply follows none.

    :param instruction: its id, such as ``length_constraints:number_words``.
    :param arguments: of it, by the names that IFEval gives them; those that are None are not given.
    :param detect: where a reply has no language (it is all numbers), it counts as the right one, as it does upstream.
    :raises DataError: there is no such instruction, or it lacks an argument.
    """
    if not reply.strip():
        return False
    given = {k: v for k, v in arguments.items() if v is not None}
    try:
        return _holds(instruction, given, reply, detect)
    except KeyError as error:
        raise DataError(f"{instruction} has no argument {error}. Fetch the file again.") from None


def _holds(instruction: str, a: Mapping[str, Any], reply: str, detect: DetectLanguage) -> bool:  # noqa: C901  a table
    lower = reply.lower()
    match instruction.partition(":")[2]:
        case "existence":
            return all(str(k).lower() in lower for k in a["keywords"])
        case "frequency":
            return _compare(lower.count(a["keyword"].strip().lower()), a["relation"], a["frequency"])
        case "forbidden_words":
            return not any(re.search(rf"\b{re.escape(w)}\b", reply, re.IGNORECASE) for w in a["forbidden_words"])
        case "letter_frequency":
            return _compare(lower.count(a["letter"].strip().lower()), a["let_relation"], a["let_frequency"])
        case "response_language":
            return detect(reply) in (a["language"], None)
        case "number_sentences":
            return _compare(len(_sentences(reply)), a["relation"], a["num_sentences"])
        case "number_paragraphs":
            return _parts(re.split(r"\s?\*\*\*\s?", reply)) == a["num_paragraphs"]
        case "number_words":
            return _compare(len(re.findall(r"\w+", reply)), a["relation"], a["num_words"])
        case "nth_paragraph_first_word":
            return _first_word(reply, a["num_paragraphs"], int(a["nth_paragraph"])) == a["first_word"].lower()
        case "number_placeholders":
            return len(re.findall(r"\[.*?\]", reply)) >= a["num_placeholders"]
        case "postscript":
            return _postscript(lower, a["postscript_marker"].strip())
        case "number_bullet_lists":
            points = re.findall(r"^\s*(?:\*[^*].*|-.*)$", reply, re.MULTILINE)
            return len(points) == a["num_bullets"]
        case "constrained_response":
            return any(answer in reply for answer in _ANSWERS)
        case "number_highlighted_sections":
            single, double = (re.findall(p, reply) for p in (r"\*[^\n*]*\*", r"\*\*[^\n*]*\*\*"))
            return sum(bool(x.strip("*").strip()) for x in (*single, *double)) >= a["num_highlights"]
        case "multiple_sections":
            mark = re.escape(a["section_spliter"].strip())
            return len(re.findall(rf"\s?{mark}\s?\d+\s?", reply)) >= a["num_sections"]
        case "json_format":
            return _is_json(reply)
        case "title":
            return any(x.strip("<>").strip() for x in re.findall(r"<<[^\n]+>>", reply))
        case "two_responses":
            parts = [p.strip() for p in reply.split("******")]
            return _parts(parts) == 2 and len({p for p in parts if p}) == 2
        case "repeat_prompt":
            return lower.strip().startswith(a["prompt_to_repeat"].strip().lower())
        case "end_checker":
            return lower.strip().strip('"').endswith(a["end_phrase"].strip().lower())
        case "capital_word_frequency":
            words = re.findall(r"[^\W_]+(?:[-'\u2019][^\W_]+)*", reply)
            return _compare(sum(w.isupper() for w in words), a["capital_relation"], a["capital_frequency"])
        case "english_capital":
            return reply.isupper() and detect(reply) in ("en", None)
        case "english_lowercase":
            return reply.islower() and detect(reply) in ("en", None)
        case "no_comma":
            return "," not in reply
        case "quotation":
            said = reply.strip()
            return len(said) > 1 and said[0] == said[-1] == '"'
    raise DataError(f"There is no instruction {instruction!r} in IFEval. Fetch the file again.")


def _compare(count: int, relation: str, bound: int) -> bool:
    match relation:
        case "less than":
            return count < bound
        case "at least":
            return count >= bound
    raise DataError(f"There is no relation {relation!r} in IFEval. It has 'less than' and 'at least'.")


def _sentences(reply: str) -> list[str]:
    """Pieces that end in ``.``, ``!`` or ``?`` before white space, abbreviations and initials aside."""
    text = _ABBREVIATIONS.sub(lambda m: m.group().replace(".", "\0"), reply)
    return [s for s in re.split(r"(?<=[.!?])[\"')\]*]*\s+|\n\s*\n", text) if re.search(r"\w", s)]


def _parts(parts: Sequence[str]) -> int | None:
    """How many there are, but for empty ones at the ends; None where one within is empty."""
    empty = [i for i, part in enumerate(parts) if not part.strip()]
    return len(parts) - len(empty) if all(i in (0, len(parts) - 1) for i in empty) else None


def _first_word(reply: str, paragraphs: int, nth: int) -> str | None:
    parts = reply.split("\n\n")
    filled = sum(bool(part.strip()) for part in parts)
    if filled != paragraphs or nth > filled or not parts[nth - 1].strip():
        return None
    word = parts[nth - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word)[0].lower()


def _postscript(lower: str, marker: str) -> bool:
    match marker:
        case "P.P.S":
            pattern = r"p\.\s?p\.\s?s"
        case "P.S.":
            pattern = r"p\.\s?s\."
        case _:
            pattern = re.escape(marker.lower())
    return re.search(pattern, lower) is not None


def _is_json(reply: str) -> bool:
    text = re.sub(r"^```(?:json|Json|JSON)?", "", reply.strip()).removesuffix("```").strip()
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _loosely(reply: str) -> Iterator[str]:
    """Without asterisks, and without a first line, a last line, or both: an introduction costs nothing."""
    lines = reply.split("\n")
    for kept in (reply, *("\n".join(x).strip() for x in (lines[1:], lines[:-1], lines[1:-1]))):
        yield kept
        yield kept.replace("*", "")


def score_ifeval(
    items: Sequence[Item],
    replies: Mapping[str, str | None],
    *,
    detect: DetectLanguage = detect_language,
    seed: int = 0,
) -> Scored:
    """Strict and loose accuracy by prompt (all of its instructions) and by instruction; ``final`` is their mean.

    :param items: with ``instruction_id_list`` and ``kwargs`` in ``extra``.
    :param detect: tells the language of a reply.
    :raises DataError: an item has no instructions, or unknown ones.
    """
    found: list[dict[str, Any]] = []
    for key, item, reply in by_id(unique(items), replies):
        names, arguments = item.extra.get("instruction_id_list"), item.extra.get("kwargs")
        if not names or not arguments or len(names) != len(arguments):
            raise DataError(f"The item {key!r} has no instructions with arguments. Name a file of IFEval.")
        said = reply or ""
        pairs = list(zip(names, arguments, strict=True))
        strict = [follows(name, a, said, detect=detect) for name, a in pairs]
        loose = [any(follows(name, a, text, detect=detect) for text in _loosely(said)) for name, a in pairs]
        found.append({
            "id": key, "answered": reply is not None, "instructions": list(names), "strict": strict, "loose": loose
        })  # fmt: skip
    sizes = [float(len(x["strict"])) for x in found]
    columns = {
        f"{way}_{level}": [float(all(x[way]) if level == "prompt" else sum(x[way])) for x in found]
        for way in ("strict", "loose")
        for level in ("prompt", "instruction")
    }
    ones = [1.0] * len(found)
    final = bootstrap(
        lambda n, *c: sum(x.sum(1) / (n.sum(1) if i % 2 else n.shape[1]) for i, x in enumerate(c)) / len(c),
        sizes,
        *columns.values(),
        seed=seed,
    )
    missing = sum(not x["answered"] for x in found)
    return Scored(
        figures={
            "final": final,
            **{k: bootstrap_ratio(c, ones if k.endswith("prompt") else sizes, seed=seed) for k, c in columns.items()},
        },
        counts=Counts(len(found), len(found) - missing, failed=missing),
        items=found,
        settings={"detect": getattr(detect, "__name__", type(detect).__name__)},
        notes=("Sentences and words in capitals are found by rules, where the original has NLTK.",),
    )
