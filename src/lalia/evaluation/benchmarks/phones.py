"""What the tokens of a model know of phones: ABX, purities, mutual information, and the bits that they take."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from lalia.audio import Audio
from lalia.data import Manifest, Utterance
from lalia.errors import ConfigError, DataError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.representation import (
    Representation,
    abx,
    items_of,
    measured_bit_rate,
    nominal_bit_rate,
    unit_phones,
)
from lalia.evaluation.results import data_identity
from lalia.evaluation.sets import MINI_SETS, cached_set
from lalia.evaluation.statistics import Estimate
from lalia.files import sha256
from lalia.streams import Discrete, TokenSequence

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["Phones"]

_SILENCES = ("pau", "sil", "sp", "spn", "")


class Phones(InSteps):
    """The speech tokens of recordings of which it is known which phone is when.

    Units are compared as they are, the first codebook where there are several: within and across speakers, of the same
    neighbours (triphones).
    """

    name = "mini-phones"
    about = MINI_SETS["mini-phones"].asks

    def check(self, model: Any) -> None:
        self._encoded(model, questions(1)[0].load())

    @staticmethod
    def _encoded(model: Any, audio: Audio) -> TokenSequence:
        stream = model.speech_stream
        if not isinstance(model.specs[stream].kind, Discrete) or model.specs[stream].frame_rate is None:
            raise ConfigError(f"Stream {stream!r} has no units with a clock. Choose a model that has.")
        tokens: TokenSequence = model.listener.hear(
            {model.recipe.streams[stream].channel: model.hear(audio)}, [stream]
        )[stream].row(0)
        return tokens

    def _manifest(self, bench: "Bench") -> Manifest:
        folder = bench.path
        if folder is None:
            folder = cached_set(self.name, lambda done, total: bench.progress("making", done, total))
        manifest = Manifest.load(folder / "manifest.jsonl" if folder.is_dir() else folder)
        spoken = [u for u in sorted(manifest, key=lambda u: u.id) if u.phones]
        if not spoken:
            raise DataError(f"No recording of {folder} has the times of its phones. Give a manifest with phones.")
        return Manifest(spoken[: bench.limit])

    def items(self, bench: "Bench") -> list[Item]:
        return [Item(u.id, {"path": str(u.path)}, sha256(u.path)[:32]) for u in self._manifest(bench)]

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        answers = []
        for item in items:
            audio = Audio.load(item.asks["path"])
            tokens = self._encoded(model, audio)
            spec = model.specs[model.speech_stream]
            answers.append(
                {
                    "codes": tokens.values[0].tolist(),
                    "durations": None if tokens.durations is None else tokens.durations[0].tolist(),
                    "frame_rate": spec.frame_rate,
                    "nominal": nominal_bit_rate(spec),
                    "seconds": audio.seconds,
                }
            )
        return answers

    def score(self, bench: "Bench", kept: Kept) -> Found:
        heard = [u for u in self._manifest(bench) if u.id in kept.answers]
        if not heard:
            raise DataError(f"No recording was encoded: {next(iter(kept.failed.values()), 'there is none')}")
        answers = [kept.answers[u.id] for u in heard]
        tokens = [_tokens(a) for a in answers]
        units = {u.id: t.expand().values[0, 0] for u, t in zip(heard, tokens, strict=True)}
        shown = Representation(units, answers[0]["frame_rate"])
        known = {u.id: u.phones or () for u in heard}
        items = items_of(known, {u.id: u.speaker or "" for u in heard}, silences=_SILENCES)
        rate = measured_bit_rate(tokens, [a["seconds"] for a in answers])
        figures, notes = [], []
        for speaker in ("within", "across"):
            try:
                error = abx(_inside(items, shown), shown, speaker=speaker).error(seed=bench.seed)  # type: ignore[arg-type]
                figures.append(Figure(f"abx_{speaker}", f"ABX error {speaker} speakers", "share", error))
            except DataError as reason:
                notes.append(str(reason))
        phones = unit_phones(shown, known, ignore=_SILENCES)
        nominal = float(answers[0]["nominal"])
        figures += [
            Figure("pnmi", "mutual information by the entropy of phones", "share", phones.pnmi),
            Figure("phone_purity", "phone purity", "share", phones.phone_purity),
            Figure("cluster_purity", "cluster purity", "share", phones.cluster_purity),
            Figure("bit_rate", "bit rate, nominal", "bit/s", Estimate(nominal, nominal, nominal, len(heard))),
            Figure("entropy", "bit rate by the entropy of codes", "bit/s", rate.codes),
        ]
        if rate.with_durations is not None:
            figures.append(Figure("entropy_timed", "the same with durations", "bit/s", rate.with_durations))
        if kept.failed:
            notes.append(f"{len(kept.failed)} recordings were not encoded: {next(iter(kept.failed.values()))}")
        settings = {
            "data": {"identity": data_identity(heard), "recordings": len(heard)},
            "abx": {
                "distance": "identical",
                "context": "within",
                "max_size_group": 10,
                "max_x_across": 5,
                "seed": 3459,
            },
            "frames": phones.frames,
        }
        return Found(figures, [_row(u, a) for u, a in zip(heard, answers, strict=True)], settings, notes)


def _tokens(answer: Answer) -> TokenSequence:
    codes = torch.tensor(answer["codes"], dtype=torch.long)[None]
    durations = answer["durations"]
    return TokenSequence(
        codes, torch.tensor([codes.shape[2]]), None if durations is None else torch.tensor(durations)[None]
    )


def _inside(items: Sequence[Any], shown: Representation) -> list[Any]:
    """Items whose last frame there is: a tokenizer may give one less than the sound would have."""
    ends = {name: len(x) / shown.frame_rate for name, x in shown.recordings.items()}
    return [i for i in items if i.offset < ends[i.file] + 0.499 / shown.frame_rate]


def _row(u: Utterance, answer: Answer) -> Mapping[str, Any]:
    return {"id": u.id, "speaker": u.speaker, "seconds": answer["seconds"], "tokens": len(answer["codes"][0])}
