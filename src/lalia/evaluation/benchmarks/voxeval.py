"""VoxEval: questions with examples before them, in sound alone, whose spoken replies are written down."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalia.audio import Audio
from lalia.errors import DataError
from lalia.evaluation import suites
from lalia.evaluation.benchmarks.as_found import as_found
from lalia.evaluation.benchmarks.base import Found
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.folders import file_name
from lalia.evaluation.results import file_identity, tool

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["VoxEval"]

_VOICE = "alloy"


class VoxEval(InSteps):
    """The questions of one way of speaking, in the published folder, each in a conversation of its own.

    The judge of the bench writes down what is said, as Whisper large-v3 did in the paper. A model that does not speak
    is taken by its words.

    :param thought: questions of mathematics, with examples that think aloud.
    """

    one_by_one = True

    def __init__(self, *, thought: bool = False) -> None:
        self.thought = thought
        self.name = "voxeval-cot" if thought else "voxeval"
        self.about = "VoxEval: questions and answers in speech" + (", with a chain of thought" if thought else "")

    def check(self, model: Any) -> None:
        model.dialogue(speak=False).answer(questions(1)[0].load())

    def _items(self, bench: "Bench") -> tuple[list[suites.Item], Path]:
        if bench.path is None:
            raise DataError(f"No folder of {self.name} was named. Name that of VoxEval with --data.")
        path = bench.path
        inside = path.parent.name == "test" and path.is_dir()
        root, setting = (path.parent.parent, path.name) if inside else (path, _VOICE)
        found = suites.read_voxeval(root, setting=setting)
        if self.thought:
            found = [i for i in found if suites.shots_of(root, i, thought=True)[0].parent.is_dir()]
        if not found:
            raise DataError(f"{root} has no examples with a chain of thought for {setting}. Name the whole folder.")
        return found[: bench.limit], root

    def settings(self, bench: "Bench") -> Mapping[str, Any]:
        return dict(bench.talking)

    def items(self, bench: "Bench") -> list[Item]:
        place = bench.sounds(self.name)
        asked, root = self._items(bench)
        seen: dict[Path, str] = {}
        found = []
        for item in asked:
            examples = suites.shots_of(root, item, thought=self.thought)
            files = [*examples, *item.audio]
            for file in files:
                seen.setdefault(file, file_identity(file))
            asks = {
                "examples": [str(p) for p in examples],
                "question": str(item.audio[0]),
                "talking": dict(bench.talking),
                "to": str(place / f"{file_name(item.id)}.flac"),
            }
            same = Item.of(item.id, dict(bench.talking), {str(i): seen[p] for i, p in enumerate(files)})
            found.append(replace(same, asks=asks))
        return found

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        answers = []
        for x in (i.asks for i in items):
            said = suites.spoken_prompt([Path(p) for p in x["examples"]], Path(x["question"]))
            reply = model.dialogue(**x["talking"]).answer(said)
            told = {"text": reply.text}
            if reply.audio is not None and reply.audio.seconds > 0:
                Path(x["to"]).parent.mkdir(parents=True, exist_ok=True)
                reply.audio.save(x["to"])
                told["audio"] = x["to"]
            answers.append(told)
        return answers

    def score(self, bench: "Bench", kept: Kept) -> Found:
        items, _ = self._items(bench)
        answers = {i.id: kept.answers[i.id] for i in items if i.id in kept.answers}
        spoken = {key: Audio.load(a["audio"], check=False) for key, a in answers.items() if "audio" in a}
        heard = dict(zip(spoken, bench.judge(list(spoken.values())), strict=True)) if spoken else {}
        replies = {key: heard.get(key, a["text"]) for key, a in answers.items()}
        judge = tool(bench.judge) if spoken else None
        scored = suites.score_voxeval(items, replies, recognizer=judge["name"] if judge else "none")
        if len(spoken) < len(answers):
            unsaid = f"{len(answers) - len(spoken)} of {len(answers)} replies are not spoken, and taken by their words"
            scored = replace(scored, notes=[*scored.notes, unsaid])
        return as_found(scored, replies, settings={**self.settings(bench), "judge": judge})
