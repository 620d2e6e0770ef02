"""SD-Eval (Ao et al., arXiv:2406.13340): replies to what is said and how, marked from 1 to 10 by a judge.

Its files (``test-{emo,acc,age,env}.json``; amphionspace/SD-Eval at c05529b) are lists of objects with ``utt_id``,
``wav_path``, ``transcript``, ``info`` (the emotion, accent, age or background sound) and ``target``, replies that
may be given. The judge was GPT-4o at temperature 0 with seed 1337.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from lalia.errors import ConfigError
from lalia.evaluation.judging import Judge, Message
from lalia.evaluation.scored import Scored
from lalia.evaluation.suites.items import Item, of_row, read_rows, text_of
from lalia.evaluation.suites.judged import score_judged

__all__ = ["SDEvalSet", "read_sd_eval", "score_sd_eval"]

SDEvalSet = Literal["test-emo", "test-acc", "test-age", "test-env"]

_ASPECTS: Mapping[SDEvalSet, tuple[str, str]] = {
    "test-emo": ("emotion", "whether its feeling suits the emotion in which the user speaks"),
    "test-acc": ("accent", "whether it recognises the user's accent and uses words of that region"),
    "test-age": ("age", "whether its tone suits the user's age"),
    "test-env": ("background sound", "whether it takes what is heard behind the user into account"),
}

_INSTRUCTION = (
    "You mark the reply of an assistant to a user who speaks to it. You see what the user says and the user's {aspect}."
    " Consider {criterion}, and whether the reply is natural, coherent, engaging and grounded in what was said. Say in "
    'two sentences why, then give a mark from 1 (worst) to 10 (best) in exactly this form: "Rating: [[5]]".'
)


def read_sd_eval(path: str | Path, *, sounds: str | Path | None = None) -> list[Item]:
    """The utterances of one set.

    :param sounds: the folder that ``wav_path`` is relative to; that of the file when not given.
    :raises DataError: it is not a published file.
    """
    source = Path(path)
    folder = Path(sounds) if sounds is not None else source.parent
    found = []
    for number, row in enumerate(read_rows(source)):
        where = f"{source}, utterance {number}"
        targets = row.get("target")
        found.append(
            Item(
                id=text_of(row, "utt_id", where),
                audio=(folder / text_of(row, "wav_path", where),),
                text=text_of(row, "transcript", where),
                references=tuple(str(t.get("reply", "")) for t in targets) if isinstance(targets, list) else (),
                group=text_of(row, "info", where),
                extra=of_row(row, "utt_id", "wav_path", "transcript", "info", "target"),
            )
        )
    return found


def score_sd_eval(
    subset: SDEvalSet,
    items: Sequence[Item],
    replies: Mapping[str, str | None],
    judge: Judge,
    *,
    instruction: str | None = None,
    seed: int = 0,
) -> Scored:
    """The mean mark, over all and by emotion, accent, age or sound.

    :param instruction: to the judge. The one here is lalia's own words for the published criteria; marks are to be
        compared with published ones only by the published instruction (``prompts.py``) and judge.
    :raises ConfigError: an unknown set.
    :raises DataError: there are no items, or a reply is for none.
    """
    if subset not in get_args(SDEvalSet):
        raise ConfigError(f"There is no set {subset!r}. There are {', '.join(get_args(SDEvalSet))}.")
    aspect, criterion = _ASPECTS[subset]
    system = instruction or _INSTRUCTION.format(aspect=aspect, criterion=criterion)

    def messages(item: Item, reply: str) -> Sequence[Message]:
        said = f"[The user says]\n{item.text}\n\n[The user's {aspect}]\n{item.group.title()}\n\n[The reply]\n{reply}"
        return ({"role": "system", "content": system}, {"role": "user", "content": said})

    return score_judged(
        items,
        replies,
        judge,
        messages,
        lowest=1,
        highest=10,
        settings={"set": subset, "instruction": system},
        seed=seed,
    )
