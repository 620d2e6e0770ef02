"""VoxEval (Cui et al., arXiv:2501.04962): MMLU asked and answered in speech, in eleven ways of speaking.

Its folder (``qqjz/VoxEval`` of the hub; dreamtheater123/VoxEval at 00ff71d) has ``test/{subject}.csv`` without a
header, in which a row is MMLU's question, four choices and letter; ``test/{setting}/{subject}/{row:08d}_question.mp3``;
and the same with ``_answer.mp3`` for examples in ``all_fewshot_examples/{setting}/``, where ``_val`` stands for
``_test``, or with ``_CoT_answer.mp3`` in ``math_CoT_fewshot/{setting}/``, where ``_dev_4o`` stands for ``_4o``. Results
are the CSV with a transcript of what was said (by Whisper large-v3 there) as seventh column. There is no published
scorer: that the columns are MMLU's, and how replies are read, is not confirmed by a source.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from lalia.audio import Audio
from lalia.errors import DataError
from lalia.evaluation.scored import Scored
from lalia.evaluation.suites.choosing import score_choices
from lalia.evaluation.suites.items import Item

__all__ = ["read_voxeval", "read_voxeval_replies", "score_voxeval", "shots_of", "spoken_prompt"]

_SILENCE = 1.0
_KEPT = 80.0
"""Seconds: between recordings, and of the end of the prompt that is kept."""

_COLUMNS = 6


def read_voxeval(folder: str | Path, *, setting: str = "alloy", subjects: Sequence[str] | None = None) -> list[Item]:
    """The questions of some subjects, or of all; ids are ``{subject}/{row:08d}``.

    The published script leaves out rows whose recordings are not there; here they are items like all others.

    :param setting: a voice (alloy, echo, fable, nova, onyx, shimmer) or a way of speaking (alloy_noise, ...).
    :raises DataError: there is no such folder or subject, or a row is not as it should be.
    """
    root = Path(folder) / "test"
    names = sorted(p.stem for p in root.glob("*.csv")) if subjects is None else list(subjects)
    if not names:
        raise DataError(f"{root} has no subjects (*.csv). Name the folder of VoxEval.")
    found = []
    for subject in names:
        for number, row in enumerate(_rows(root / f"{subject}.csv")):
            if len(row) < _COLUMNS or row[5].strip() not in ("A", "B", "C", "D"):
                raise DataError(f"{root / subject}.csv, row {number} is no question, four choices and a letter.")
            letter = row[5].strip()
            found.append(
                Item(
                    id=f"{subject}/{number:08d}",
                    audio=(root / setting / subject / f"{number:08d}_question.mp3",),
                    text=row[0],
                    choices=tuple(row[1:5]),
                    references=(row[1 + "ABCD".index(letter)],),
                    group=subject,
                    extra={"setting": setting, "letter": letter},
                )
            )
    return found


def _rows(path: Path) -> list[list[str]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}). Name the folder of VoxEval.") from None


def read_voxeval_replies(folder: str | Path, subjects: Sequence[str] | None = None) -> dict[str, str]:
    """The transcripts in a folder of results, by the ids of `read_voxeval`; rows without one have no reply.

    :raises DataError: there are none.
    """
    root = Path(folder)
    names = sorted(p.stem for p in root.glob("*.csv")) if subjects is None else list(subjects)
    if not names:
        raise DataError(f"{root} has no results (*.csv). Name the folder that the evaluation wrote.")
    return {
        f"{subject}/{number:08d}": row[_COLUMNS]
        for subject in names
        for number, row in enumerate(_rows(root / f"{subject}.csv"))
        if len(row) > _COLUMNS and row[_COLUMNS].strip()
    }


def shots_of(folder: str | Path, item: Item, *, shots: int | None = None, thought: bool = False) -> list[Path]:
    """The examples that are heard before a question, each with its answer behind it.

    :param shots: how many; 5, or 3 with ``thought``, when not given.
    :param thought: whether answers are those with a chain of thought (of three subjects of mathematics).
    """
    subject, setting = item.group, item.extra["setting"]
    if thought:
        root = Path(folder) / "math_CoT_fewshot" / setting / subject.replace("_4o", "_dev_4o")
    else:
        root = Path(folder) / "all_fewshot_examples" / setting / subject.replace("_test", "_val")
    answer = "CoT_answer" if thought else "answer"
    count = (3 if thought else 5) if shots is None else shots
    return [root / f"{i:08d}_{part}.mp3" for i in range(count) for part in ("question", answer)]


def spoken_prompt(examples: Sequence[Path], asked: Path) -> Audio:
    """What a model hears: examples with their answers and then the question, 1 s of silence between any two.

    Of all that, the last 80 s. Recordings at another rate are brought to the question's.

    :param examples: see `shots_of`.
    :raises AudioError: a recording is not there, or cannot be used.
    """
    question = Audio.load(asked).mono()
    rate = question.sample_rate
    silence = torch.zeros(1, 1, round(_SILENCE * rate))
    pieces = []
    for file in examples:
        pieces += [Audio.load(file).mono().to(rate).samples, silence]
    samples = torch.cat([*pieces, question.samples], -1)
    return Audio(samples[..., -round(_KEPT * rate) :], rate)


def score_voxeval(items: Sequence[Item], replies: Mapping[str, str | None], *, recognizer: str = "unknown") -> Scored:
    """Accuracy over all questions and by subject, of transcripts that name a letter or say a choice (`read_choice`).

    :param recognizer: what wrote the transcripts, for the record.
    :raises DataError: there are no items, or a reply is for none.
    """
    return score_choices(
        items,
        replies,
        settings={"recognizer": recognizer, "setting": sorted({str(x.extra.get("setting")) for x in items})},
        notes=("VoxEval publishes no scorer; replies are read by lalia's rules.",),
    )
