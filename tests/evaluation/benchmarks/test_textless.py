"""What a model without text is asked: what its units know of phones, and how it goes on speaking."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lalia.audio import Audio
from lalia.data import Manifest, Utterance, Word
from lalia.errors import DataError
from lalia.evaluation.benchmarks import Bench
from lalia.evaluation.benchmarks.continuations import Continuations
from lalia.evaluation.benchmarks.likelihood import Likelihood
from lalia.evaluation.benchmarks.phones import Phones
from lalia.evaluation.representation import Representation, abx, items_of, save_items
from lalia.model import Model, load
from lalia.recipes import find

RATE = 16_000
SOUNDS = {"a": 300.0, "b": 900.0, "c": 2100.0}


@pytest.fixture(scope="module")
def model(tiny: Path) -> Model:
    return load(tiny)


def spoken(text: str, pitch: float) -> tuple[Audio, tuple[Word, ...]]:
    t = torch.arange(round(0.2 * RATE)) / RATE
    samples = torch.cat([0.3 * torch.cos(2 * torch.pi * SOUNDS[c] * pitch * t) for c in text])
    return Audio(samples, RATE), tuple(Word(c, round(0.2 * i, 3), round(0.2 * (i + 1), 3)) for i, c in enumerate(text))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    utterances = []
    for speaker, pitch in (("s", 1.0), ("t", 1.1)):
        for i, text in enumerate(("abcbabcab", "cbabacbac", "bacabcbca")):
            audio, phones = spoken(text, pitch)
            path = audio.save(tmp_path / f"{i}.{speaker}.flac")
            utterances.append(
                Utterance(f"{i}.{speaker}", path, duration=audio.seconds, speaker=speaker, text=text, phones=phones)
            )
    Manifest(utterances).save(tmp_path / "manifest.jsonl")
    return tmp_path


def test_phones_of_a_model_are_those_of_its_units(model: Model, folder: Path) -> None:
    found = Phones().run(Bench(model, "m", "m", path=folder, batch_size=2))
    values = {f.key: f.estimate.value for f in found.figures}
    manifest = Manifest.load(folder / "manifest.jsonl")
    units, known = {}, {}
    for u in manifest:
        units[u.id] = model.encode(u.load())["units"].expand().values[0, 0]
        known[u.id] = tuple(p for p in u.phones or () if p.end < len(units[u.id]) / 50)
    shown = Representation(units, 50.0)
    items = items_of(known, {u.id: str(u.speaker) for u in manifest})
    for speaker in ("within", "across"):
        naive = abx(items, shown, speaker=speaker).error().value  # type: ignore[arg-type]
        assert values[f"abx_{speaker}"] == pytest.approx(naive, abs=0.05)
    assert 0 < values["phone_purity"] <= 1
    assert len(found.items) == 6


def test_phones_are_asked_once(model: Model, folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "kept"
    whole = Phones().run(Bench(model, "m", "m", path=folder, folder=place))
    again = Phones().run(Bench(None, "m", "m", path=folder, folder=place, score_only=True))
    assert again.figures == whole.figures


def test_the_command_takes_phones_of_ones_own(lalia: Any, tiny: Path, folder: Path) -> None:
    ran = lalia("eval", tiny, "mini-phones", "--data", folder, "--json")
    assert ran.status == 0, ran.err
    assert ran.json["results"]["mini-phones"]["counts"]["asked"] == 6


def test_recordings_without_phones_are_refused(model: Model, folder: Path) -> None:
    bare = Manifest([Utterance(u.id, u.path, duration=u.duration) for u in Manifest.load(folder / "manifest.jsonl")])
    bare.save(folder / "manifest.jsonl")
    with pytest.raises(DataError, match="has the times of its phones"):
        Phones().run(Bench(model, "m", "m", path=folder))


def test_features_are_compared_by_their_angle(folder: Path, tmp_path: Path) -> None:
    model = Model(find("flow_omni").tiny())
    place = tmp_path / "kept"
    found = Phones().run(Bench(model, "m", "m", path=folder, folder=place))
    assert found.settings["abx"]["distance"] == "angular"
    assert {f.key for f in found.figures} == {"abx_within", "abx_across"}
    again = Phones().run(Bench(None, "m", "m", path=folder, folder=place, score_only=True))
    assert again.figures == found.figures


def test_an_item_file_is_enough_for_abx(model: Model, folder: Path) -> None:
    whole = Phones(folder).run(Bench(model, "m", "m"))
    known = {u.id: (u.phones or (), u.speaker or "") for u in Manifest.load(folder / "manifest.jsonl")}
    items = items_of({k: p for k, (p, _) in known.items()}, {k: s for k, (_, s) in known.items()})
    (folder / "manifest.jsonl").unlink()
    save_items(items, folder / "all.item")
    found = Phones(folder).run(Bench(model, "m", "m"))
    assert list(found.figures) == [f for f in whole.figures if f.key.startswith("abx")]


def test_likelihood_is_that_of_each_recording(model: Model, folder: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(folder / "manifest.jsonl")
    bench = Bench(model, "m", "m", data=manifest, batch_size=4, folder=tmp_path / "kept")
    found = {f.key: f.estimate for f in Likelihood().run(bench).figures}
    scored = [model.score(u.load()) for u in manifest]
    bits = -sum(s.sum for s in scored) / torch.tensor(2.0).log().item()
    assert found["bits_per_second"].value == pytest.approx(bits / sum(u.duration for u in manifest), rel=1e-4)
    assert found["bits_per_token"].value == pytest.approx(bits / sum(s.tokens for s in scored), rel=1e-4)
    assert found["bits_per_token"].low <= found["bits_per_token"].value <= found["bits_per_token"].high
    kept = Bench(None, "m", "m", data=manifest, folder=tmp_path / "kept", score_only=True)
    assert {f.key: f.estimate for f in Likelihood().run(kept).figures} == found


class Judge:
    """Hears as many words as there are half seconds."""

    name, version = "counts", "1"

    def __call__(self, recordings: Any) -> list[str]:
        return [" ".join(["word", "other"] * round(a.seconds)) for a in recordings]


class Turned:
    """Tells voices apart by how long a recording is."""

    name, version = "turned", "1"

    def __call__(self, recordings: Any) -> list[torch.Tensor]:
        return [torch.tensor([a.seconds, 1.0]) for a in recordings]


class Reads:
    name, version = "reads", "1"

    def log_probs(self, texts: Any, prompts: Any = None) -> list[torch.Tensor]:
        return [-torch.ones(len(t.split())) for t in texts]


def bench(model: Any, data: Manifest | None, **settings: Any) -> Bench:
    made = Bench(model, "m", "m", data=data, **settings)
    made.__dict__ |= {"judge": Judge(), "text_lm": Reads(), "rater": None, "voices": Turned()}
    return made


@pytest.fixture
def long(tmp_path: Path) -> Manifest:
    made = []
    for i in range(3):
        audio, _ = spoken("abcbabcabcbabacbacbac", 1 + 0.1 * i)
        path = audio.save(tmp_path / f"{i}.flac")
        made.append(Utterance(f"{i}", path, duration=audio.seconds))
    return Manifest(made)


def test_continuations_are_kept_and_measured(model: Model, long: Manifest, tmp_path: Path) -> None:
    asked = Continuations((0.7, 1.0), seconds=1.0)
    found = asked.run(bench(model, long, folder=tmp_path / "kept"))
    values = {f.key: f.estimate.value for f in found.figures}
    assert values["mean_t0.7"] == values["geometric_truth"] == pytest.approx(torch.e)
    assert {"vert_t1", "auto_bleu2_truth"} <= values.keys()
    assert len(found.items) == 6
    for item in found.items:
        assert Audio.load(item["audio"]).seconds == pytest.approx(item["seconds"])
        assert item["text"] == " ".join(["word", "other"] * round(item["seconds"]))
    assert json.dumps(dict(found.details))
    again = asked.run(bench(None, long, folder=tmp_path / "kept", score_only=True))
    assert again.figures == found.figures
    # Each continuation has a seed of its own, whatever else is asked.
    alone = asked.run(bench(model, Manifest([long[2]]), folder=tmp_path / "alone"))
    one = Audio.load(alone.items[0]["audio"])
    same = next(x for x in found.items if x["id"] == alone.items[0]["id"])
    assert torch.equal(one.samples, Audio.load(same["audio"]).samples)


def test_a_model_goes_on_as_its_recipe_samples(model: Model, long: Manifest) -> None:
    asked = Continuations((None,), seconds=0.5, prompt_seconds=1.0, prompts=2)
    found = asked.run(bench(model, long))
    assert [i["id"] for i in found.items] == ["0@own", "1@own"]
    assert {"geometric_own", "geometric_truth", "sim_o", "sim_o_truth"} <= {f.key for f in found.figures}


def test_what_is_too_short_to_go_on_is_refused(model: Model, long: Manifest) -> None:
    with pytest.raises(DataError, match="None of 3 recordings lasts 8 s"):
        Continuations().run(bench(model, long))
