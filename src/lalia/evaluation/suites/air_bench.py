"""AIR-Bench (Yang et al., arXiv:2402.07729): questions with choices (foundation) and open ones (chat) on any sound.

Its files (OFA-Sys/AIR-Bench at 9832476) are ``Foundation_meta.json`` and ``Chat_meta.json``: lists of objects with
``uniq_id``, ``path``, ``task_name``, ``dataset_name``, ``question``, ``answer_gt``, and ``choice_a`` to ``choice_d``
(two to four) or ``meta_info`` (what is heard, in words, for a judge). Sound lies in ``{task_name}_{dataset_name}/``,
that of Audio_Grounding as FLAC. Files of results are JSON Lines of the same with ``response``.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from lalia.evaluation.judging import Judge, Message, ask
from lalia.evaluation.scored import Counts, Scored, by_id
from lalia.evaluation.statistics import mean, share
from lalia.evaluation.suites.choosing import score_choices
from lalia.evaluation.suites.items import Item, of_row, read_rows, text_of, unique
from lalia.evaluation.suites.judged import judge_tool

__all__ = ["read_air_bench", "read_air_bench_replies", "score_air_chat", "score_air_foundation"]

_CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
_LOWEST, _HIGHEST = 1, 10

_INSTRUCTION = (
    "Two assistants were asked about a recording. You see a description of the recording, the question, and both "
    "answers. Mark each answer from 1 (worst) to 10 (best) for how helpful, relevant, accurate and complete it is. "
    "Write one line with two numbers and a space between them, the first answer's mark first, and nothing else."
)


def read_air_bench(path: str | Path) -> list[Item]:
    """The questions of either part; sound lies in folders beside the file.

    :raises DataError: it is not a published file.
    """
    source = Path(path)
    return [_item(row, source, number) for number, row in enumerate(read_rows(source))]


def _item(row: Mapping[str, Any], source: Path, number: int) -> Item:
    where = f"{source}, question {number}"
    task, data = text_of(row, "task_name", where), text_of(row, "dataset_name", where)
    sound = source.parent / f"{task}_{data}" / text_of(row, "path", where)
    if task == "Audio_Grounding":
        sound = sound.with_suffix(".flac")
    question = text_of(row, "question", where)
    choices = tuple(str(row[key]) for key in _CHOICES if row.get(key) is not None)
    listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", choices, strict=False))
    return Item(
        id=str(row.get("uniq_id", number)),
        audio=(sound,),
        text=f"{question}{listed}",
        choices=choices,
        references=(text_of(row, "answer_gt", where),),
        group=f"{task}_{data}" if choices else task,
        extra=of_row(row, "uniq_id", "path", "answer_gt", "response", *_CHOICES),
    )


def read_air_bench_replies(path: str | Path) -> dict[str, str]:
    """The replies in a file of results; ids are ``uniq_id``, or where there are none the number of the line.

    :raises DataError: it cannot be read.
    """
    rows = enumerate(read_rows(path))
    return {str(row.get("uniq_id", n)): row["response"] for n, row in rows if isinstance(row.get("response"), str)}


def score_air_foundation(items: Sequence[Item], replies: Mapping[str, str | None]) -> Scored:
    """Accuracy over all, and by task and data set.

    The published script takes the first letter of a reply if it is A to D, which reads "Answer: C" as A, and leaves
    out what it cannot read; here replies are read by `read_choice`, and what says nothing is wrong. Where all replies
    are single letters the two agree.

    :raises DataError: there are no items, an answer is none of the choices, or a reply is for no item.
    """
    return score_choices(
        items,
        replies,
        settings={"rule": "read_choice"},
        notes=("The published script leaves out replies that it cannot read; here they are wrong.",),
    )


def score_air_chat(
    items: Sequence[Item],
    replies: Mapping[str, str | None],
    judge: Judge,
    *,
    instruction: str | None = None,
    seed: int = 0,
) -> Scored:
    """Marks from 1 to 10 beside those of the reference answers, over all and by kind of sound.

    The judge sees each pair twice, in either order, and both marks are means over the two; so a judge that favours
    what comes first favours nobody. An item that got no marks in either order has failed, and has the lowest. The
    published judge was GPT-4-0125-preview; half of its questions were sent at temperature 2, by chance, which is not
    done here.

    :param instruction: to the judge. The one here is lalia's own words; marks are to be compared with published ones
        only by the published instruction (``score_chat.py``) and judge.
    :raises DataError: there are no items, or a reply is for none.
    """
    system = instruction or _INSTRUCTION
    found: list[dict[str, Any]] = []
    failures = 0
    for key, item, reply in by_id(unique(items), replies):
        x: dict[str, Any] = {"id": key, "group": _kind(item.group), "mark": None, "reference": None, "failures": []}
        if reply is not None:
            pairs = []
            for swapped in (False, True):
                answers = (reply, item.references[0]) if swapped else (item.references[0], reply)
                verdict = ask(judge, _messages(system, item, answers), _two_marks)
                failures += len(verdict.failures)
                x["failures"] += verdict.failures
                pairs += [(a, b) if swapped else (b, a) for a, b in verdict.values]
            if pairs:
                x["mark"], x["reference"] = fmean(a for a, _ in pairs), fmean(b for _, b in pairs)
        found.append(x)
    marked = [x for x in found if x["mark"] is not None]
    marks = [_LOWEST if x["mark"] is None else x["mark"] for x in found]
    figures = {"score": mean(marks, seed=seed)}
    for group in sorted({x["group"] for x in found}):
        of_group = [m for m, x in zip(marks, found, strict=True) if x["group"] == group]
        figures[f"score/{group}"] = mean(of_group, seed=seed)
    figures["score_of_judged"] = mean([x["mark"] for x in marked], seed=seed)
    figures["reference_score"] = mean([x["reference"] for x in marked], seed=seed)
    figures["wins"] = share([x["mark"] > x["reference"] for x in marked])
    return Scored(
        figures=figures,
        counts=Counts(len(found), len(marked), failed=len(found) - len(marked)),
        items=found,
        settings={"judge": judge_tool(judge), "instruction": system, "judge_failures": failures},
    )


def _kind(task: str) -> str:
    """Speech, sound, music, or speech with one of these, of the tasks of the chat part."""
    for kind in ("speech_and_sound", "speech_and_music", "speech", "sound", "music"):
        if task.startswith(kind):
            return kind
    return task


def _messages(system: str, item: Item, answers: tuple[str, str]) -> Sequence[Message]:
    shown = (
        f"[Description of the recording]\n{item.extra.get('meta_info', '')}\n\n[Question]\n{item.text}\n\n"
        f"[First answer]\n{answers[0]}\n[End of the first answer]\n\n"
        f"[Second answer]\n{answers[1]}\n[End of the second answer]"
    )
    return ({"role": "system", "content": system}, {"role": "user", "content": shown})


def _two_marks(reply: str) -> tuple[float, float] | None:
    found = re.fullmatch(r"\D{0,40}?(\d+(?:\.\d+)?)[\s,;/]+(\d+(?:\.\d+)?)\W*", reply.strip())
    marks = (float(found[1]), float(found[2])) if found else None
    return marks if marks and all(_LOWEST <= m <= _HIGHEST for m in marks) else None
