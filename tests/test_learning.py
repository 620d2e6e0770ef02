"""Tokenizers that must hear recordings first: who lets them, what is kept, and that a loaded model hears the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lalia.audio import Audio
from lalia.data import Manifest, TokenDataset, Utterance, Word, discover
from lalia.errors import DataError
from lalia.model import Model, load_tokenizer, save_tokenizer
from lalia.recipes import find
from lalia.tokenizers import Energy, Learns, Levelled, Mel, Pitch, PitchVQ, SSLUnits, Style, frames_of
from lalia.train.learning import Levels, learn
from lalia.train.material import TOKENIZERS, Material
from lalia.train.preparing import RecipeStreams, prepare_all
from lalia.vocoders import GriffinLim, HifiGan

SPEECH = Path(__file__).parents[1].parent / "shared/data/librispeech-mini"


@pytest.fixture(scope="module")
def recordings(corpus: Path) -> list[Path]:
    """Real speech where there is some, else noise."""
    return sorted(SPEECH.glob("*.flac"))[:5] or sorted(corpus.rglob("*.wav"))[:5]


@pytest.fixture(scope="module")
def manifest(recordings: list[Path]) -> Manifest:
    return Manifest([replace(u, duration=min(u.duration, 6.0)) for u in discover(recordings)])


def load(u: Utterance) -> Audio:
    return u.load(sample_rate=16000)


@pytest.mark.parametrize(
    "config",
    [
        Pitch.Config(clusters=8, normalize=None),
        Energy.Config(clusters=8),
        PitchVQ.Config(clusters=8),
        Mel.Config(20, normalize=True),
        SSLUnits.Config("hubert", clusters=8).tiny(),
        Style.Config("hubert", clusters=8).tiny(),
    ],
    ids=lambda config: config.owner.__name__,
)
def test_what_was_learned_is_kept(config: Any, manifest: Manifest, tmp_path: Path) -> None:
    tokenizer = config.build()
    assert isinstance(tokenizer, Learns)
    assert not tokenizer.fitted
    assert tokenizer.weights() == {}
    before = tokenizer.identity
    save_tokenizer(tokenizer, tmp_path / "fresh")
    assert not load_tokenizer(tmp_path / "fresh").fitted
    audio = load(manifest[0])
    raw = tokenizer.encode(audio).values
    assert learn(tokenizer, manifest, load, "x")
    assert tokenizer.fitted
    assert tokenizer.identity != before
    assert not learn(tokenizer, [], load, "x"), "what has learned does not learn again"
    heard = tokenizer.encode(audio).values
    assert heard.shape != raw.shape or not torch.equal(heard, raw)
    save_tokenizer(tokenizer, tmp_path / "kept")
    again = load_tokenizer(tmp_path / "kept")
    assert again.fitted
    assert again.identity == tokenizer.identity
    assert torch.equal(again.encode(audio).values, heard)


def test_too_little_is_told_with_the_stream() -> None:
    with pytest.raises(DataError, match="Stream 'tune': There is nothing to fit pitch tokens on"):
        learn(PitchVQ.Config().build(), [], load, "tune")


def test_bands_come_in_standard_scores_and_leave_as_they_were(manifest: Manifest) -> None:
    config = Mel.Config(80, normalize=True)
    mel, plain = config.build(), Mel.Config(80).build()
    learn(mel, manifest, load, "mel")
    frames = torch.cat([mel.encode(load(u)).values[0] for u in manifest])
    torch.testing.assert_close(frames.mean(0), torch.zeros(80), atol=1e-3, rtol=0)
    torch.testing.assert_close(frames.std(0), torch.ones(80), atol=1e-2, rtol=0)
    audio = load(manifest[0]).cut(0.0, 0.5)
    scored, spectra = mel.encode(audio), plain.encode(audio)
    specs = {"mel": config.spec}
    for vocoder_config in (HifiGan.Config("mel").tiny(), GriffinLim.Config("mel")):
        torch.manual_seed(0)
        vocoder = vocoder_config.build(specs).eval()
        wanted = vocoder.decode({"mel": spectra}).samples
        vocoder.adopt({"mel": mel.weights()})
        torch.testing.assert_close(vocoder.decode({"mel": scored}).samples, wanted, atol=2e-3, rtol=1e-2)
        assert not any("standard" in name for name in vocoder.state_dict())


def test_the_level_is_that_of_the_speaker(manifest: Manifest, corpus: Path) -> None:
    """Half of a recording is as high as in the whole of what its speaker says."""
    config = Pitch.Config(normalize="speaker", interpolate=False)
    pitch: Pitch = config.build()
    assert isinstance(pitch, Levelled)
    assert pitch.by_speaker
    whole = manifest[0]
    halves = [
        replace(whole, id=str(i), start=i * whole.duration / 2, duration=whole.duration / 2, speaker="she")
        for i in range(2)
    ]
    levels = Levels(pitch, halves, load)
    assert levels(replace(whole, speaker=None)) is None
    assert levels(halves[0]) == levels(halves[1]) == pitch.level([load(u) for u in halves])
    plain: Pitch = replace(config, normalize=None).build()
    absolute = plain.encode(load(halves[0])).values
    relative = pitch.encode(load(halves[0]), level=levels(halves[0])).values
    there = absolute != 0
    torch.testing.assert_close(relative[there], absolute[there] - levels(halves[0]))
    # Not known: that of the recording itself.
    torch.testing.assert_close(
        pitch.encode(load(halves[0]), level=float("nan")).values, pitch.encode(load(halves[0])).values
    )


@pytest.mark.parametrize("name", ["pgslm", "flow_omni"])
def test_a_loaded_model_hears_what_it_was_trained_on(
    name: str, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LALIA_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("lalia.train.tokenizers.bundled", dict)
    recipe = find(name).tiny()
    known = Manifest([replace(u, speaker=None, text="so it was") for u in manifest])
    listed = tmp_path / "data" / "manifest.jsonl"
    listed.parent.mkdir()
    known.save(listed)
    told: list[str] = []
    (place,) = prepare_all(recipe, [listed.parent], tiny=True, ready={}, tell=told.append)
    fitted = {"pgslm": ("units", "log_f0"), "flow_omni": ("mel",)}[name]
    assert [line for line in told if "fitted" in line] == [
        f"Stream {s!r}: fitted {recipe.streams[s].tokenizer.owner.__name__} on the recordings"  # type: ignore[attr-defined]
        for s in fitted
    ]
    # A second time nothing is learned, and nothing made.
    told.clear()
    assert prepare_all(recipe, [listed.parent], tiny=True, ready={}, tell=told.append) == [place]
    assert not [line for line in told if "fitted" in line]
    # A manifest is as good as the folder that has it.
    (same,) = prepare_all(recipe, [listed], tiny=True, ready={}, tell=told.append)
    assert len(TokenDataset(same)) == len(TokenDataset(place)) > 0

    material = Material.open([place])
    Model(recipe, learned=material.learned, identities=material.identities).save(tmp_path / "model")
    model = Model.load(tmp_path / "model")
    rows, utterances = TokenDataset(place), {u.id: u for u in Manifest.load(place / "manifest.jsonl")}
    for i in range(len(rows)):
        u = utterances[rows.ids[i]]
        heard = model.listener.hear(RecipeStreams(recipe).load(u).sounds, fitted)
        for stream in fitted:
            kept = rows[i].streams[stream].values
            torch.testing.assert_close(heard[stream].values.to(kept.dtype), kept, atol=4e-3, rtol=1e-3)


def test_what_was_begun_goes_on_with_what_it_had_learned(manifest: Manifest, tmp_path: Path) -> None:
    recipe = find("pgslm").tiny()
    first = RecipeStreams(recipe)
    first.learn(manifest[:3])
    first.save(tmp_path)
    second = RecipeStreams(recipe)
    second.begun_with(tmp_path)
    second.learn(manifest)
    assert second.info["log_f0"].sha256 == first.info["log_f0"].sha256
    third = RecipeStreams(recipe)
    third.learn(manifest)
    assert third.info["log_f0"].sha256 != first.info["log_f0"].sha256


def test_lalia_tokenize_fits_what_has_not_learned(lalia: Any, recordings: list[Path], tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    save_tokenizer(Pitch.Config(clusters=8).build(), fresh)
    out = tmp_path / "out"
    command = ("tokenize", *recordings, "-o", out, "--tokenizer", fresh, "--stream", "pitch")
    ran = lalia(*command, "--world", 2)
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "has learned nothing yet" in ran.err
    ran = lalia(*command)
    assert ran.status == 0, ran.err
    assert "Fitted Pitch on the recordings" in ran.err
    kept = load_tokenizer(out / TOKENIZERS / "pitch")
    assert kept.fitted
    codes = torch.cat([row.streams["pitch"].values.flatten() for row in TokenDataset(out)])
    share = torch.bincount(codes.long(), minlength=8) / len(codes)
    if SPEECH.is_dir():
        # As many frames in each bin: what even bins from -1 to 1 are far from.
        assert 0.08 < float(share.min()) <= float(share.max()) < 0.2
    ran = lalia(*command)
    assert ran.status == 0, ran.err
    assert "Fitted" not in ran.err


@pytest.mark.skipif(not SPEECH.is_dir(), reason="needs recorded speech")
def test_durations_and_pitch_of_units_are_those_of_the_voice(manifest: Manifest) -> None:
    """pGSLM's streams, undone: every unit lasts as long as it did, at the pitch that it had (but for bins of 3 %)."""
    maker = RecipeStreams(find("pgslm").tiny())
    maker.learn(manifest)
    pitch: Pitch = maker.tokenizer("log_f0")
    for u in discover([max(SPEECH.glob("*.flac"))]):
        streams = maker.listener.hear({None: u.load()}, maker.names)
        lasting = streams["units"].durations
        assert lasting is not None
        assert torch.equal(frames_of(streams["durations"]), lasting.clamp(max=32))
        decoded = torch.repeat_interleave(pitch.dequantize(streams["log_f0"]).values[0, :, 0], lasting[0])
        tracked, there = pitch.measure(load(u), None, final=True)[0].unbind(-1)
        n = min(len(decoded), len(tracked))
        voiced = there[:n] > 0
        both = torch.stack([decoded[:n][voiced], tracked[:n][voiced]])
        assert float(torch.corrcoef(both)[0, 1]) > 0.9


def test_turns_have_no_silence_around_them(recordings: list[Path], tmp_path: Path) -> None:
    """Who answers when the question is over hears nothing behind it; who listens all the time hears the silence."""
    parts = [Audio.load(path, seconds=2.0, mono=True, sample_rate=16000).samples[0, 0] for path in recordings[:2]]
    both = torch.zeros(2, 5 * 16000)
    both[1, : len(parts[0])] = parts[0]
    both[0, -len(parts[1]) :] = parts[1]
    Audio(both, 16000).save(tmp_path / "talk.flac")
    u = Utterance("talk", tmp_path / "talk.flac", duration=5.0, words=(Word("so", 3.5, 3.75),))
    turns = RecipeStreams(find("llama_omni").tiny()).load(u)
    assert turns.sounds["user"].seconds == pytest.approx(2.0, abs=0.1)
    assert turns.sounds[None].seconds == pytest.approx(2.0, abs=0.1)
    assert turns.start == pytest.approx(3.0, abs=0.1)
    whole = RecipeStreams(find("moshi").tiny()).load(u)
    assert {a.seconds for a in whole.sounds.values()} == {5.0}
    assert whole.start == 0.0
