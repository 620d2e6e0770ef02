"""Suites whose replies a judge marks: what it could not mark is counted, and has the lowest mark."""

import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from lalia.evaluation.judging import Judge, Message, ask
from lalia.evaluation.scored import Counts, Scored, by_id
from lalia.evaluation.statistics import mean
from lalia.evaluation.suites.items import Item, unique

__all__ = ["judge_tool", "read_mark", "score_judged"]


def read_mark(reply: str, lowest: int, highest: int) -> float | None:
    """A mark within its bounds: in brackets (``[[5]]``), else behind "rating" or "score", else the whole reply.

    A number anywhere in a sentence is none.
    """
    number = r"(\d+(?:\.\d+)?)"
    for pattern in (
        rf"\[\[?\s*{number}\s*\]?\]",
        rf"(?:rating|score)\W{{0,4}}(?:is\s+)?{number}(?!\s*[-–]\s*\d)",
        rf"^\W*{number}(?:\s*(?:/\s*{highest}|points?))?\W*$",
    ):
        found = re.search(pattern, reply.strip(), re.IGNORECASE)
        if found:
            mark = float(found.group(1))
            return mark if lowest <= mark <= highest else None
    return None


def judge_tool(judge: Judge) -> dict[str, str]:
    """Its name and version, to be read once it has answered."""
    return {"name": judge.name, "version": judge.version}


def score_judged(
    items: Sequence[Item],
    replies: Mapping[str, str | None],
    judge: Judge,
    messages: Callable[[Item, str], Sequence[Message]],
    *,
    lowest: int,
    highest: int,
    times: int = 1,
    settings: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    seed: int = 0,
) -> Scored:
    """The mean mark over items; that of an item is the mean over the times that the judge gave one.

    ``score`` is over all that was asked, and what has no mark (no reply, or a judge that failed every time) has the
    lowest. ``score_of_judged`` is over the others, as it is published: where judges fail it is of other items for each
    model. The judge is asked even about empty replies.

    :param messages: what the judge is shown.
    :raises DataError: there are no items, or a reply is for none.
    """
    found: list[dict[str, Any]] = []
    failures = 0
    for key, item, reply in by_id(unique(items), replies):
        if reply is None:
            found.append({"id": key, "group": item.group, "mark": None, "reason": "There is no reply."})
            continue
        verdict = ask(judge, messages(item, reply), lambda text: read_mark(text, lowest, highest), times=times)
        failures += len(verdict.failures)
        found.append(
            {
                "id": key,
                "group": item.group,
                "mark": fmean(verdict.values) if verdict.values else None,
                "judge": list(verdict.replies),
                "failures": list(verdict.failures),
            }
        )
    marked = [x for x in found if x["mark"] is not None]
    groups = sorted({str(x["group"]) for x in found} - {""})

    def all_of(group: str | None) -> list[float]:
        return [lowest if x["mark"] is None else x["mark"] for x in found if group is None or x["group"] == group]

    figures = {"score": mean(all_of(None), seed=seed)}
    figures |= {f"score/{group}": mean(all_of(group), seed=seed) for group in groups if len(groups) > 1}
    figures["score_of_judged"] = mean([x["mark"] for x in marked], seed=seed)
    return Scored(
        figures=figures,
        counts=Counts(len(found), len(marked), failed=len(found) - len(marked)),
        items=found,
        settings={
            **(settings or {}),
            "judge": judge_tool(judge),
            "times": times,
            "marks": [lowest, highest],
            "judge_failures": failures,
        },
        notes=notes,
    )
