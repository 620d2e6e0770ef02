"""How many bits a second the tokens of a model take."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from lalia.errors import ConfigError, DataError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.representation import measured_bit_rate, nominal_bit_rate
from lalia.evaluation.results import data_identity
from lalia.evaluation.statistics import Estimate
from lalia.streams import TokenSequence

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["BitRate", "codes_of", "tokens_of"]


class BitRate(InSteps):
    """The bit rate of recordings, nominal and by the entropy of codes, of the stream that the vocoder speaks."""

    name = "bit-rate"
    about = "bits a second of speech"
    parts = ("tokenizer",)

    def check(self, model: Any) -> None:
        self.ask(model, [Item.hearing("a", questions(1)[0].utterance)])

    def items(self, bench: "Bench") -> list[Item]:
        return [Item.hearing(u.id, u) for u in bench.recordings]

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        answers = []
        for item in items:
            audio = item.heard()
            streams = model.encode(audio)
            if len(streams) > 1:
                raise ConfigError(f"There are {len(streams)} streams, whose bit rate together is not known.")
            ((name, tokens),) = streams.items()
            if not tokens.discrete:
                raise ConfigError(f"The stream {name!r} is continuous, and so has no bit rate.")
            answers.append({**codes_of(tokens), "nominal": _nominal(model.specs[name]), "seconds": audio.seconds})
        return answers

    def score(self, bench: "Bench", kept: Kept) -> Found:
        recordings = [u for u in bench.recordings if u.id in kept.answers]
        if not recordings:
            raise DataError(f"No recording was encoded: {next(iter(kept.failed.values()), 'there is none')}")
        answers = [kept.answers[u.id] for u in recordings]
        rate = measured_bit_rate([tokens_of(a) for a in answers], [a["seconds"] for a in answers])
        figures, nominal = [], answers[0]["nominal"]
        timed = rate.with_durations
        if timed is None:
            figures.append(Figure("measured", "by the entropy of codes", "bit/s", rate.codes))
        else:
            figures.append(Figure("measured", "by the entropy of codes with their durations", "bit/s", timed))
            figures.append(Figure("codes", "by the entropy of codes alone", "bit/s", rate.codes))
        if nominal is not None:
            figures.append(Figure("nominal", "nominal", "bit/s", Estimate(nominal, nominal, nominal, len(recordings))))
        return Found(
            figures,
            [
                {"id": u.id, "seconds": a["seconds"], "tokens": len(a["codes"][0])}
                for u, a in zip(recordings, answers, strict=True)
            ],
            {"data": {"identity": data_identity(recordings), "recordings": len(recordings)}},
        )


def codes_of(tokens: TokenSequence) -> Answer:
    """Tokens of one row as JSON."""
    row = tokens.row(0)
    return {
        "codes": row.values[0].tolist(),
        "durations": None if row.durations is None else row.durations[0].tolist(),
    }


def tokens_of(answer: Mapping[str, Any]) -> TokenSequence:
    """The tokens that `codes_of` has written."""
    codes = torch.tensor(answer["codes"], dtype=torch.long)[None]
    durations = answer["durations"]
    return TokenSequence(
        codes, torch.tensor([codes.shape[2]]), None if durations is None else torch.tensor(durations)[None]
    )


def _nominal(spec: Any) -> float | None:
    try:
        return float(nominal_bit_rate(spec))
    except ConfigError:
        return None
