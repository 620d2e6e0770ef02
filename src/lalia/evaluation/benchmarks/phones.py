"""What the tokens of a model know of phones: ABX, purities and mutual information."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lalia.data import Manifest, Utterance, from_folder
from lalia.errors import ConfigError, DataError
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bit_rate import codes_of, tokens_of
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.folders import file_name
from lalia.evaluation.representation import Representation, abx, items_of, load_items, unit_phones
from lalia.evaluation.representation.items import Item as Phone
from lalia.evaluation.results import data_identity
from lalia.evaluation.sets import MINI_SETS, cached_set

if TYPE_CHECKING:
    from lalia.evaluation.benchmarks.bench import Bench

__all__ = ["Phones"]

_SILENCES = ("pau", "sil", "sp", "spn", "SIL", "")


class Phones(InSteps):
    """The speech tokens of recordings of which it is known which phone is when.

    Units are compared as they are, the first codebook where there are several, and features by their angle: within and
    across speakers, of the same neighbours (triphones). The stream is the first that the vocoder speaks.

    :param folder: another than lalia's own set: a manifest with phones, a folder with one (``manifest.jsonl``), or
        with an ``.item`` file of ZeroSpeech beside its recordings, of which ABX alone is measured.
    """

    name = "mini-phones"
    about = MINI_SETS["mini-phones"].asks
    parts = ("tokenizer",)

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def check(self, model: Any) -> None:
        name = next(iter(model.encode(questions(1)[0].load())))
        if model.specs[name].frame_rate is None:
            raise ConfigError(f"Stream {name!r} has no clock. Choose a model whose stream has one.")

    def _read(self, bench: "Bench") -> tuple[list[Utterance], list[Phone]]:
        """The recordings, and the stretches of them that are told apart; those of whole sentences, where some are
        asked for alone, for what several voices read is compared across them.
        """
        place = self.folder or bench.path
        if place is None:
            place = cached_set(self.name, lambda done, total: bench.progress("making", done, total))
        manifest = place / "manifest.jsonl" if place.is_dir() else place
        spoken = [u for u in Manifest.load(manifest) if u.phones] if manifest.is_file() else []
        lists = sorted(place.glob("*.item")) if place.is_dir() and not spoken else []
        if not spoken and len(lists) != 1:
            raise DataError(f"No recording of {place} has the times of its phones. Give a manifest with phones.")
        items = load_items(lists[0]) if lists else []
        if lists:
            named = {i.file for i in items}
            spoken = [u for u in from_folder(place) if u.path.stem in named]
            spoken = [Utterance(u.path.stem, u.path, duration=u.duration) for u in spoken]
            if missing := sorted(named - {u.id for u in spoken}):
                raise DataError(f"There is no recording {missing[0]!r} ({len(missing)} are missing). Add them.")
        spoken.sort(key=lambda u: u.id)
        texts = list(dict.fromkeys(u.text or u.id for u in spoken))[: bench.limit]
        spoken = [u for u in spoken if (u.text or u.id) in texts]
        if not lists:
            known = {u.id: u.phones or () for u in spoken}
            items = items_of(known, {u.id: u.speaker or "" for u in spoken}, silences=_SILENCES)
        kept = {u.id for u in spoken}
        return spoken, [i for i in items if i.file in kept]

    def items(self, bench: "Bench") -> list[Item]:
        place = bench.sounds(self.name).with_name("features")
        return [Item.hearing(u.id, u, to=str(place / f"{file_name(u.id)}.npy")) for u in self._read(bench)[0]]

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        answers = []
        for item in items:
            audio = item.heard()
            name, tokens = next(iter(model.encode(audio).items()))
            said = {"frame_rate": model.specs[name].frame_rate, "seconds": audio.seconds}
            if tokens.discrete:
                answers.append({**codes_of(tokens), **said})
                continue
            to = Path(item.asks["to"])
            to.parent.mkdir(parents=True, exist_ok=True)
            np.save(to, tokens.row(0).values[0].float().cpu().numpy())
            answers.append({"features": str(to), **said})
        return answers

    def score(self, bench: "Bench", kept: Kept) -> Found:
        spoken, phones = self._read(bench)
        heard = [u for u in spoken if u.id in kept.answers]
        if not heard:
            raise DataError(f"No recording was encoded: {next(iter(kept.failed.values()), 'there is none')}")
        frames = {u.id: _frames(kept.answers[u.id]) for u in heard}
        shown = Representation(frames, kept.answers[heard[0].id]["frame_rate"])
        figures, notes, pairs = [], [], {}
        for speaker in ("within", "across"):
            try:
                found = abx(_inside(phones, shown), shown, speaker=speaker)  # type: ignore[arg-type]
                error = found.error(seed=bench.seed)
            except DataError as reason:
                notes.append(str(reason))
                continue
            pairs[speaker] = [{"pair": list(pair), "error": e} for pair, e in found.pairs.items()]
            figures.append(Figure(f"abx_{speaker}", f"ABX error {speaker} speakers", "share", error))
        settings = {
            "data": {"identity": data_identity(heard), "recordings": len(heard)},
            "abx": {
                "distance": "identical" if shown.discrete else "angular",
                "context": "within",
                "max_size_group": 10,
                "max_x_across": 5,
                "seed": 3459,
            },
        }
        known = {u.id: u.phones for u in heard if u.phones}
        if shown.discrete and known:
            told = unit_phones(shown, known, ignore=_SILENCES)
            figures += [
                Figure("pnmi", "mutual information by the entropy of phones", "share", told.pnmi),
                Figure("phone_purity", "phone purity", "share", told.phone_purity),
                Figure("cluster_purity", "cluster purity", "share", told.cluster_purity),
            ]
            settings["frames"] = told.frames
        if not figures:
            raise DataError(f"Nothing can be compared: {notes[0]}")
        rows = [_row(u, kept.answers[u.id], len(frames[u.id])) for u in heard]
        return Found(figures, rows, settings, notes, {"pairs": pairs})


def _frames(answer: Answer) -> torch.Tensor:
    """Units [T] or features [T, D], frame by frame."""
    if "features" in answer:
        return torch.from_numpy(np.load(answer["features"]))
    return tokens_of(answer).expand().values[0, 0]


def _inside(items: Sequence[Phone], shown: Representation) -> list[Phone]:
    """Items whose last frame there is: a tokenizer may give one less than the sound would have."""
    ends = {name: len(x) / shown.frame_rate for name, x in shown.recordings.items()}
    return [i for i in items if i.file in ends and i.offset < ends[i.file] + 0.499 / shown.frame_rate]


def _row(u: Utterance, answer: Answer, frames: int) -> Mapping[str, Any]:
    return {"id": u.id, "speaker": u.speaker, "seconds": answer["seconds"], "frames": frames}
