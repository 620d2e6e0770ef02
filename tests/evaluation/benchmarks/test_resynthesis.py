"""What is asked of the way from sound to tokens and back: words, bits, time, and a liking for speech as spoken."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lalia.audio import Audio
from lalia.data import Manifest
from lalia.errors import ConfigError, DataError
from lalia.evaluation.alone import Alone
from lalia.evaluation.benchmarks import Bench, Judges, evaluate
from lalia.evaluation.benchmarks.bit_rate import BitRate
from lalia.evaluation.benchmarks.resynthesis import Resynthesis
from lalia.evaluation.benchmarks.speech_pairs import SpeechPairs
from lalia.evaluation.benchmarks.speed import Speed
from lalia.evaluation.memory import Remembered
from lalia.evaluation.text import Basic, word_edits
from lalia.model import Model, load
from lalia.recipes import find
from lalia.tokenizers import Codec

pytestmark = pytest.mark.usefixtures("one_thread")


def bench(model: Any, data: Manifest, listener: Any, **settings: Any) -> Bench:
    judges = Judges()
    judges.__dict__ |= {"judge": listener, "recognizer": listener, "normalizer": Basic()}
    return Bench(model, "toy", "toy", data=data, judges=judges, **settings)


def test_words_are_lost_as_the_judge_hears_it(
    scales: Manifest, listener: Any, likes_rising: Any, tmp_path: Path
) -> None:
    model = likes_rising(shift=700.0, fails=(4,))
    found = Resynthesis().run(bench(model, scales, listener, folder=tmp_path, batch_size=1))
    values = {f.key: f.estimate.value for f in found.figures}
    assert found.settings["reference"] == "text"
    errors = []
    for u in sorted(scales, key=lambda u: u.id):
        file = tmp_path / "resynthesis/audio" / f"{u.id}.flac"
        said = listener([Audio.load(file)])[0] if file.is_file() else ""
        errors.append(word_edits(str(u.text), said).errors)
    assert errors[3] == 8
    assert values["wer"] == pytest.approx(sum(errors) / 80)
    assert values["wer_original"] == 0
    assert values["wer_added"] == values["wer"]
    assert found.counts is not None
    assert found.counts["failed"] == 1
    assert found.counts["failures"] == {"s3": "It will not. Ask another."}
    # Kept, and not asked for again.
    again = Resynthesis().run(bench(None, scales, listener, folder=tmp_path, score_only=True))
    assert again.figures == found.figures


def test_without_texts_the_second_recogniser_is_the_reference(
    scales: Manifest, listener: Any, likes_rising: Any
) -> None:
    bare = Manifest([replace(u, text=None) for u in scales])
    found = Resynthesis().run(bench(likes_rising(), bare, listener))
    assert found.settings["reference"] == "second"
    assert {f.key: f.estimate.value for f in found.figures}["wer"] == 0


def test_bits_are_those_of_the_codes(tiny: Path, scales: Manifest) -> None:
    model = load(tiny)
    found = BitRate().run(Bench(model, "m", "m", data=scales, limit=4))
    values = {f.key: f.estimate.value for f in found.figures}
    seconds, counts, timed = 0.0, Counter[int](), Counter[tuple[int, int]]()
    for u in sorted(scales, key=lambda u: u.id)[:4]:
        tokens = model.encode(u.load())["units"]
        assert tokens.durations is not None
        codes, durations = tokens.values[0, 0].tolist(), tokens.durations[0].tolist()
        counts.update(codes)
        timed.update(zip(codes, durations, strict=True))
        seconds += u.duration

    def bits(table: Any) -> float:
        total = sum(table.values())
        return sum(-n * math.log2(n / total) for n in table.values()) / seconds

    assert values["codes"] == pytest.approx(bits(counts), rel=1e-3)
    assert values["measured"] == pytest.approx(bits(timed), rel=1e-3)
    assert values["nominal"] == pytest.approx(50 * math.log2(model.specs["units"].kind.codebook_size))
    with pytest.raises(ConfigError, match="continuous"):
        BitRate().check(Model(find("flow_omni").tiny()))


def test_a_codec_alone_is_measured_in_what_it_can_do(scales: Manifest, listener: Any) -> None:
    torch.manual_seed(0)
    codec = Alone(Codec.Config(16_000).tiny().build())
    found = evaluate(bench(codec, scales, listener, limit=2), ["resynthesis", "bit-rate", "speed"])
    assert list(found["results"]) == ["resynthesis", "bit-rate", "speed"]
    assert found["results"]["speed"]["notes"] == ["the language model was not timed: It has no language model."]
    with pytest.raises(ConfigError, match="It has no language model"):
        evaluate(bench(codec, scales, listener), ["continuations"])


def test_every_part_is_timed(tiny: Path, scales: Manifest) -> None:
    found = Speed(1.0, 0.5).run(Bench(load(tiny), "m", "m", data=scales, limit=2))
    assert [f.key for f in found.figures] == ["both", "encode", "vocode", "lm", "token"]
    assert [i["id"] for i in found.items] == ["s0", "s1"]
    for item in found.items:
        assert item["both"] == item["encode"] + item["vocode"]
        assert min(item[k] for k in ("encode", "vocode", "lm", "token")) > 0


class NoText:
    """A text LM to which every text is as likely as any."""

    name, version = "none", "1"

    def log_probs(self, texts: Any, prompts: Any = None) -> list[torch.Tensor]:
        return [torch.zeros(1)] * len(texts)


def pairs(model: Any, data: Manifest, listener: Any, **settings: Any) -> Bench:
    made = bench(model, data, listener, **settings)
    made.judges.__dict__["text_lm"] = NoText()
    return made


def test_speech_as_it_was_spoken_is_likelier(
    scales: Manifest, listener: Any, likes_rising: Any, tmp_path: Path
) -> None:
    heard = Remembered(listener, tmp_path / "heard")
    bare = Manifest([replace(u, words=None, text=None) for u in scales])
    found = SpeechPairs().run(pairs(likes_rising(), bare, heard, folder=tmp_path, limit=4))
    values = {f.key: f.estimate.value for f in found.figures}
    assert values["reversed.sum"] == values["reordered.sum"] == 1
    assert len(found.items) == 16
    assert set(found.settings["meaning"]) == {"reversed", "reordered", "rephrased", "spliced"}
    asked, file = listener.asked, tmp_path / "speech-pairs/made/s0.reversed.flac"
    written = file.stat().st_mtime_ns
    again = SpeechPairs().run(pairs(None, bare, heard, folder=tmp_path, limit=4, score_only=True))
    assert again.figures == found.figures
    assert (listener.asked, file.stat().st_mtime_ns) == (asked, written)
    # Of other recordings other pairs are made.
    other = Manifest(list(bare)[4:7])
    found = SpeechPairs().run(pairs(likes_rising(), other, heard, folder=tmp_path))
    assert {i["id"] for i in found.items} == {"s4", "s5", "s6"}
    # And of the same ones, where words have other times.
    file = tmp_path / "speech-pairs/made/s4.reordered.flac"
    written = file.read_bytes()
    moved = [replace(u, words=(scales[0].words or ())[:5]) for u in other]
    SpeechPairs().run(pairs(likes_rising(), Manifest(moved), heard, folder=tmp_path))
    assert file.read_bytes() != written


def test_what_can_make_no_pair_is_refused(scales: Manifest, listener: Any, likes_rising: Any, tmp_path: Path) -> None:
    gone = Manifest([replace(scales[0], path=tmp_path / "gone.wav")])
    with pytest.raises(DataError, match="No pair could be made"):
        SpeechPairs().run(pairs(likes_rising(), gone, listener))
