"""How a model goes on speaking: what it says, how varied it is, how it sounds, and in whose voice."""

import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lalia.audio import Audio
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
from lalia.files import sha256

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["Continuations"]

_PROMPT = 3.0
"""Seconds of a recording that are listened to (GSLM, slamkit)."""

_NUM_PROMPTS = 40


class Continuations(InSteps):
    """Recordings are gone on with, at several temperatures, and what is said is written down by the judge.

    The truth beside it is how the recordings themselves go on, for as long. Perplexity falls where a text repeats
    itself, so that it says something only beside diversity (GSLM's PPX and VERT).

    :param temperatures: the figures of the middle one are shown; all of them make the curve.
    :param seconds: that each continuation lasts at most.
    """

    name = "continuations"
    about = "how the model goes on speaking"
    one_by_one = True

    def __init__(self, temperatures: Sequence[float] = (0.5, 0.8, 1.1), seconds: float = 5.0) -> None:
        self.temperatures, self.seconds = tuple(temperatures), seconds

    def check(self, model: Any) -> None:
        model.continue_(questions(1)[0].load(), seconds=0.5)

    def _recordings(self, bench: "Bench") -> list[Utterance]:
        """Those that go on behind the prompt; the bundled questions, which do not, where there are no others."""
        if bench.data is None:
            return [q.utterance for q in questions(bench.limit)]
        long = [u for u in sorted(bench.data, key=lambda u: u.id) if u.duration >= _PROMPT + self.seconds]
        if not long:
            raise DataError(
                f"None of {len(bench.data)} recordings lasts {_PROMPT + self.seconds:g} s, so that it goes on behind "
                f"{_PROMPT:g} s. Give longer ones."
            )
        return long[: bench.limit or _NUM_PROMPTS]

    def settings(self, bench: "Bench") -> Mapping[str, Any]:
        return {"prompt_seconds": _PROMPT, "seconds": self.seconds, "seed": bench.seed}

    def items(self, bench: "Bench") -> list[Item]:
        place = _place(bench)
        found = []
        for u in self._recordings(bench):
            identity = sha256(u.path)[:32]
            for t in self.temperatures:
                name = f"{u.id}@{t:g}"
                asks = {
                    "path": str(u.path),
                    "start": u.start,
                    "temperature": t,
                    "seconds": self.seconds,
                    # Each has a seed of its own that does not hang on what else is asked.
                    "seed": (bench.seed + zlib.crc32(name.encode())) % 2**31,
                    "to": str(place / f"{file_name(name)}.flac"),
                }
                found.append(Item(name, asks, identity))
        return found

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        answers = []
        for item in items:
            x = item.asks
            prompt = Audio.load(x["path"]).cut(x["start"], _PROMPT)
            made = model.continue_(
                prompt, prompt_seconds=None, seconds=x["seconds"], temperature=x["temperature"], seed=x["seed"]
            )
            behind = made.audio.cut(made.prompt_seconds)
            if behind.seconds <= 0:
                raise DataError("It says nothing. Ask at another temperature.")
            Path(x["to"]).parent.mkdir(parents=True, exist_ok=True)
            behind.save(x["to"])
            answers.append({"audio": x["to"], "seconds": behind.seconds})
        return answers

    def score(self, bench: "Bench", kept: Kept) -> Found:
        recordings = self._recordings(bench)
        said = {t: self._heard(bench, kept, recordings, t) for t in self.temperatures}
        shown = self.temperatures[len(self.temperatures) // 2]
        figures: list[Figure] = []
        notes: list[str] = []
        truth = {} if bench.data is None else self._truth(bench, recordings)
        if not truth:
            notes.append("the bundled questions end with their prompt; --data DIR has a truth to compare with")
        details: dict[str, Any] = {"texts": {f"{t:g}": texts for t, texts in said.items()}, "truth": truth}
        figures += self._texts(bench, said, truth, notes, details)
        figures += self._sounds(bench, kept, recordings, shown, notes)
        if kept.failed:
            notes.append(f"{len(kept.failed)} prompts were not gone on with: {next(iter(kept.failed.values()))}")
        return Found(
            figures,
            [{"id": key, **answer} for key, answer in sorted(kept.answers.items())],
            {
                "data": {"identity": data_identity(recordings), "recordings": len(recordings)},
                "temperatures": list(self.temperatures),
                "shown": shown,
                "judge": tool(bench.judge),
                **self.settings(bench),
            },
            notes,
            details,
        )

    def _heard(self, bench: "Bench", kept: Kept, recordings: Sequence[Utterance], t: float) -> dict[str, str]:
        """What is said at a temperature, by prompt; nothing where nothing came."""
        answers = {u.id: kept.answers.get(f"{u.id}@{t:g}") for u in recordings}
        spoken = {key: Audio.load(a["audio"], check=False) for key, a in answers.items() if a is not None}
        texts = dict(zip(spoken, bench.judge(list(spoken.values())), strict=True))
        return {key: texts.get(key, "") for key in answers}

    def _truth(self, bench: "Bench", recordings: Sequence[Utterance]) -> dict[str, str]:
        behind = [u.load().cut(_PROMPT, self.seconds) for u in recordings]
        return dict(zip((u.id for u in recordings), bench.judge(behind), strict=True))

    def _texts(
        self,
        bench: "Bench",
        said: Mapping[float, Mapping[str, str]],
        truth: Mapping[str, str],
        notes: list[str],
        details: dict[str, Any],
    ) -> list[Figure]:
        found: list[Figure] = []
        groups = {**{f"at {t:g}": texts for t, texts in said.items()}, **({"truth": truth} if truth else {})}
        measured: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        for label, texts in groups.items():
            key = "truth" if label == "truth" else f"t{label.removeprefix('at ')}"
            varied = evaluate_diversity(texts, normalizer=bench.normalizer, seed=bench.seed)
            try:
                likely = evaluate_perplexity({k: x.lower() for k, x in texts.items()}, bench.text_lm, seed=bench.seed)
            except LaliaError as error:
                notes.append(f"no perplexity: {error}")
                continue
            for name, words in (("mean", "perplexity (mean)"), ("geometric", "perplexity (geometric mean)")):
                estimate = _estimate(likely["summary"][name])
                found.append(Figure(f"{name}_{key}", f"{label}: {words}", "perplexity", estimate))
            for name, words in (("vert", "VERT"), ("auto_bleu2", "auto-BLEU2")):
                found.append(Figure(f"{name}_{key}", f"{label}: {words}", "share", _estimate(varied["summary"][name])))
            measured[key] = (likely, varied)
            details[key] = {"perplexity": likely, "diversity": varied}
        details["curve"] = self._curve(measured, bench.seed)
        return found

    def _curve(self, measured: Mapping[str, tuple[dict[str, Any], dict[str, Any]]], seed: int) -> dict[str, Any] | str:
        """PPX at the diversity of the truth, VERT at its perplexity, and the area between; or why there is none."""
        sampled = {t: measured[key] for t in self.temperatures if (key := f"t{t:g}") in measured}
        if "truth" not in measured:
            return "There is no truth to compare with."
        try:
            return evaluate_tradeoff(sampled, measured["truth"], seed=seed)
        except LaliaError as error:
            return str(error)

    def _sounds(
        self, bench: "Bench", kept: Kept, recordings: Sequence[Utterance], shown: float, notes: list[str]
    ) -> list[Figure]:
        made = {u.id: kept.answers[key]["audio"] for u in recordings if (key := f"{u.id}@{shown:g}") in kept.answers}
        found = []
        if bench.rater is not None and made:
            rated = evaluate_quality(made, DNSMOSRating(), seed=bench.seed)["summary"]["mos"]
            found.append(Figure("dnsmos", f"at {shown:g}: DNSMOS", "MOS", _estimate(rated)))
        try:
            from lalia.evaluation.generation.resemblyzer import Resemblyzer

            prompts = {u.id: u.load().cut(0.0, _PROMPT) for u in recordings if u.id in made}
            alike = evaluate_similarity(made, prompts, Resemblyzer(), seed=bench.seed)["summary"]
            for name, words in (("sim_o", "voice like the prompt's"), ("others", "voice like other prompts'")):
                found.append(Figure(name, f"at {shown:g}: {words}", "ratio", _estimate(alike[name])))
        except LaliaError as error:
            notes.append(f"voices are not compared: {error}")
        return found


def _place(bench: "Bench") -> Path:
    """Where the sound lies; nobody looks for it where nothing is to be kept."""
    if bench.folder is not None:
        return bench.folder / Continuations.name / "audio"
    return Path(tempfile.gettempdir()) / f"lalia-continuations-{bench.name.replace('/', '-')}"


def _estimate(found: Mapping[str, Any]) -> Estimate:
    values = {k: float("nan") if v is None else v for k, v in found.items()}
    return Estimate(values["value"], values["low"], values["high"], int(found["n"]))
