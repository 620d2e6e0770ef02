"""How a model goes on speaking: what it says, how varied it is, how it sounds, and in whose voice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalia.audio import Audio, AudioLike
from lalia.data import Utterance
from lalia.errors import DataError, LaliaError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.folders import file_name
from lalia.evaluation.generation.diversity import evaluate_diversity
from lalia.evaluation.generation.perplexity import evaluate_perplexity
from lalia.evaluation.generation.quality import DNSMOSRating, evaluate_quality
from lalia.evaluation.generation.speakers import evaluate_similarity
from lalia.evaluation.generation.tradeoff import evaluate_tradeoff
from lalia.evaluation.results import data_identity, tool
from lalia.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["Continuations"]

_NUM_PROMPTS = 40


class Continuations(InSteps):
    """Recordings are gone on with, at several temperatures, and what is said is written down by the judge.

    The truth beside it is how the recordings themselves go on, for as long. Perplexity falls where a text repeats
    itself, so that it says something only beside diversity (GSLM's PPX and VERT).

    :param temperatures: the figures of the middle one are shown; all of them make the curve. None is as the recipe
        samples.
    :param seconds: that each continuation lasts at most.
    :param prompt_seconds: of a recording that are listened to (3 s: GSLM, slamkit).
    :param prompts: recordings that are gone on with; the bench's limit, or 40, when not given.
    """

    name = "continuations"
    about = "how the model goes on speaking"
    one_by_one = True

    def __init__(
        self,
        temperatures: Sequence[float | None] = (0.5, 0.8, 1.1),
        seconds: float = 5.0,
        prompt_seconds: float = 3.0,
        prompts: int | None = None,
    ) -> None:
        self.temperatures, self.seconds = tuple(temperatures), seconds
        self.prompt_seconds, self.prompts = prompt_seconds, prompts

    def check(self, model: Any) -> None:
        model.continue_(questions(1)[0].load(), seconds=0.5)

    def recordings(self, bench: "Bench") -> list[Utterance]:
        """Those that go on behind the prompt; the bundled questions, which do not, where there are no others."""
        if bench.data is None:
            return bench.recordings[: self.prompts]
        needed = self.prompt_seconds + self.seconds
        long = [u for u in sorted(bench.data, key=lambda u: u.id) if u.duration >= needed]
        if not long:
            raise DataError(
                f"None of {len(bench.data)} recordings lasts {needed:g} s, so that it goes on behind "
                f"{self.prompt_seconds:g} s. Give longer ones."
            )
        return long[: bench.limit or self.prompts or _NUM_PROMPTS][: self.prompts]

    def settings(self, bench: "Bench") -> Mapping[str, Any]:
        return {"prompt_seconds": self.prompt_seconds, "seconds": self.seconds, "seed": bench.seed}

    def items(self, bench: "Bench") -> list[Item]:
        place = bench.sounds(self.name)
        found = []
        for u in self.recordings(bench):
            for t in self.temperatures:
                name = f"{u.id}@{_named(t)}"
                asks = {
                    "temperature": t,
                    "prompt_seconds": self.prompt_seconds,
                    "seconds": self.seconds,
                    "seed": bench.seed_of(name),
                    "to": str(place / f"{file_name(name)}.flac"),
                }
                found.append(Item.hearing(name, u, **asks))
        return found

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        answers = []
        for item in items:
            x = item.asks
            made = model.continue_(
                item.heard(mono=False).cut(0.0, x["prompt_seconds"]),
                prompt_seconds=None,
                seconds=x["seconds"],
                temperature=x["temperature"],
                seed=x["seed"],
            )
            behind = made.audio.cut(made.prompt_seconds)
            if behind.seconds <= 0:
                raise DataError("It says nothing. Ask at another temperature.")
            Path(x["to"]).parent.mkdir(parents=True, exist_ok=True)
            behind.save(x["to"])
            answers.append({"audio": x["to"], "seconds": behind.seconds})
        return answers

    def score(self, bench: "Bench", kept: Kept) -> Found:
        recordings = self.recordings(bench)
        if not kept.answers:
            raise DataError(f"Nothing was gone on with: {next(iter(kept.failed.values()), 'there is no recording')}")
        shown = self.temperatures[len(self.temperatures) // 2]
        figures: list[Figure] = []
        notes: list[str] = []
        behind = {} if bench.data is None else {u.id: self._behind(u) for u in recordings}
        truth = dict(zip(behind, bench.judge(list(behind.values())), strict=True)) if behind else {}
        if not truth:
            notes.append("the bundled questions end with their prompt; --data DIR has a truth to compare with")
        rows = self._rows(bench, kept, recordings)
        said = {t: {r["recording"]: r["text"] for r in rows if r["temperature"] == t} for t in self.temperatures}
        details: dict[str, Any] = {"truth_texts": truth}
        figures += self._texts(bench, said, truth, notes, details)
        made: dict[str, Any] = {r["recording"]: r["audio"] for r in rows if r["temperature"] == shown and r["audio"]}
        figures += self._sounds(bench, _label(shown), "", made, recordings, notes, details)
        if behind:
            figures += self._sounds(bench, "truth", "_truth", behind, recordings, [], details)
        settings = {
            "data": {"identity": data_identity(recordings), "recordings": len(recordings)},
            "temperatures": list(self.temperatures),
            "shown": _key(shown),
            "judge": tool(bench.judge),
            **self.settings(bench),
        }
        return Found(figures, rows, settings, notes, details)

    def _rows(self, bench: "Bench", kept: Kept, recordings: Sequence[Utterance]) -> list[dict[str, Any]]:
        """What is said of each prompt at each temperature; nothing where nothing came."""
        asked = {f"{u.id}@{_named(t)}": (u, t) for t in self.temperatures for u in recordings}
        there = [key for key in asked if key in kept.answers]
        texts = dict(
            zip(there, bench.judge([Audio.load(kept.answers[k]["audio"], check=False) for k in there]), strict=True)
        )
        return [
            {
                "id": key,
                "recording": u.id,
                "temperature": t,
                "audio": None,
                "seconds": 0.0,
                **kept.answers.get(key, {}),
                "text": texts.get(key, ""),
            }
            for key, (u, t) in asked.items()
        ]

    def _behind(self, u: Utterance) -> Audio:
        return u.load().cut(self.prompt_seconds, self.seconds)

    def _texts(
        self,
        bench: "Bench",
        said: Mapping[float | None, Mapping[str, str]],
        truth: Mapping[str, str],
        notes: list[str],
        details: dict[str, Any],
    ) -> list[Figure]:
        found: list[Figure] = []
        groups = [(_key(t), _label(t), texts) for t, texts in said.items()]
        measured: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        for key, label, texts in [*groups, *([("truth", "truth", truth)] if truth else [])]:
            varied = evaluate_diversity(texts, normalizer=bench.normalizer, seed=bench.seed)
            details[key] = {"diversity": varied}
            try:
                likely = evaluate_perplexity({k: x.lower() for k, x in texts.items()}, bench.text_lm, seed=bench.seed)
                measured[key] = (likely, varied)
                details[key]["perplexity"] = likely
                for name, words in (("mean", "perplexity (mean)"), ("geometric", "perplexity (geometric mean)")):
                    estimate = Estimate.from_dict(likely["summary"][name])
                    found.append(Figure(f"{name}_{key}", f"{label}: {words}", "perplexity", estimate))
            except LaliaError as error:
                notes.append(f"no perplexity: {error}")
            for name, words in (("vert", "VERT"), ("auto_bleu2", "auto-BLEU2")):
                estimate = Estimate.from_dict(varied["summary"][name])
                found.append(Figure(f"{name}_{key}", f"{label}: {words}", "share", estimate))
        details["curve"] = self._curve(measured, bench.seed)
        return found

    def _curve(self, measured: Mapping[str, tuple[dict[str, Any], dict[str, Any]]], seed: int) -> dict[str, Any] | str:
        """PPX at the diversity of the truth, VERT at its perplexity, and the area between; or why there is none."""
        sampled = {t: measured[_key(t)] for t in self.temperatures if t is not None and _key(t) in measured}
        if "truth" not in measured:
            return "There is no truth to compare with."
        try:
            return evaluate_tradeoff(sampled, measured["truth"], seed=seed)
        except LaliaError as error:
            return str(error)

    def _sounds(
        self,
        bench: "Bench",
        label: str,
        suffix: str,
        made: Mapping[str, AudioLike],
        recordings: Sequence[Utterance],
        notes: list[str],
        details: dict[str, Any],
    ) -> list[Figure]:
        found = []
        rater: Any = bench.rater
        notes += [note for note in bench.notes if note not in notes]
        if rater is not None and made:
            rated = evaluate_quality(made, DNSMOSRating(judge=rater), seed=bench.seed)
            details[f"quality{suffix}"] = rated
            estimate = Estimate.from_dict(rated["summary"]["mos"])
            found.append(Figure(f"dnsmos{suffix}", f"{label}: DNSMOS", "MOS", estimate))
        try:
            prompts = {u.id: u.load().cut(0.0, self.prompt_seconds) for u in recordings if u.id in made}
            alike = evaluate_similarity(made, prompts, bench.voices, seed=bench.seed)
        except LaliaError as error:
            notes.append(f"voices are not compared: {error}")
            return found
        details[f"similarity{suffix}"] = alike
        for name, words in (("sim_o", "voice like the prompt's"), ("others", "voice like other prompts'")):
            estimate = Estimate.from_dict(alike["summary"][name])
            found.append(Figure(f"{name}{suffix}", f"{label}: {words}", "ratio", estimate))
        return found


def _named(temperature: float | None) -> str:
    return "own" if temperature is None else f"{temperature:g}"


def _key(temperature: float | None) -> str:
    """What figures of a temperature are called."""
    return "own" if temperature is None else f"t{temperature:g}"


def _label(temperature: float | None) -> str:
    return "as its recipe samples" if temperature is None else f"at {temperature:g}"
