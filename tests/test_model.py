import itertools
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import lalia
from lalia.audio import Audio
from lalia.config import override
from lalia.errors import AudioError, CheckpointError, ConfigError
from lalia.layouts import Flat, Parallel
from lalia.lm import Linear, Lookup
from lalia.model import Model, bundled, find, load, load_tokenizer, save_tokenizer
from lalia.model import model as model_module
from lalia.model.scoring import context_of, score
from lalia.recipe import Recipe, Stream
from lalia.recipes import find as find_recipe
from lalia.store import holds, read_weights
from lalia.streams import TokenSequence
from lalia.tokenizers import Codec
from lalia.vocoders import CodecDecoder, GriffinLim

RATE = 16000


@pytest.fixture(scope="module")
def model(tiny: Path) -> Model:
    return load(tiny)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """The tiny model where a test may spoil it."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def retold(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads((folder / "recipe.json").read_text())
    change(data)
    (folder / "recipe.json").write_text(json.dumps(data))


# -- storing ------------------------------------------------------------------------------------


def test_saved_and_loaded_bit_for_bit(model: Model, clip: Path, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = load(tmp_path)
    assert again.recipe == model.recipe
    assert again.identities == model.identities
    ours, theirs = model.module.state_dict(), again.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.score(clip) == model.score(clip)
    first, second = (m.continue_(clip, seconds=1.0, seed=3).audio.samples for m in (model, again))
    assert torch.equal(first, second)


def over_codes(books: int, layout: Any) -> Model:
    """A model over the first codebooks of a tiny codec."""
    codec = Codec.Config(16_000).tiny()
    lm = replace(
        find_recipe("mini-gslm").tiny().lms["ulm"],
        layout=layout,
        inputs={"speech": Lookup()},
        heads={"speech": Linear.Config()},
    )
    return Model(
        Recipe(
            name="sliced",
            paper="",
            streams={"speech": Stream(codec, codebooks=(0, books))},
            lms={"lm": lm},
            vocoder=CodecDecoder.Config("speech", codec),
        )
    )


def test_a_stream_may_take_some_of_the_codebooks_of_its_tokenizer(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = over_codes(2, Flat("speech"))
    whole = model.tokenizer("speech").encode(model.hear(clip))
    assert whole.values.shape[1] > 2
    codes = model.encode(clip)["speech"]
    assert torch.equal(codes.values, whole.values[:, :2])
    assert model.resynthesize(clip).seconds == pytest.approx(5.0, abs=0.1)
    assert len(model.score(clip).log_probs) == 2 * codes.num_tokens
    monkeypatch.setattr(model_module, "_PIECE_SECONDS", 1.0)
    assert model.encode(clip)["speech"].values.shape == codes.values.shape


@pytest.mark.parametrize(("layout", "steps_of"), [(Flat("speech"), 2), (Parallel(("speech",), delays=(0, 1)), 1)])
def test_going_on_takes_no_more_steps_than_its_layout_has(
    clip: Path, layout: Any, steps_of: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rate = over_codes(2, layout), 50 / 3
    lm: Any = model.lms["lm"]
    calls, forward = itertools.count(), lm.forward
    monkeypatch.setattr(lm, "forward", lambda *a, **k: (next(calls), forward(*a, **k))[1])
    made = model.continue_(clip, prompt_seconds=1.2, seconds=1.2)
    assert made.audio.seconds == pytest.approx(2.4, abs=0.1)
    assert made.tokens == round(1.2 * rate)
    assert next(calls) <= steps_of * made.tokens + 2


def test_tied_weights_are_stored_once_and_stay_tied(tiny: Path, model: Model) -> None:
    names = load_file(tiny / "model.safetensors").keys()
    assert not [n for n in names if "heads" in n]
    lm: Any = model.lms["ulm"]
    assert lm.heads["units"].weight is lm.tables["units"].embedding.weight


def test_stored_in_half_precision(model: Model, clip: Path, tmp_path: Path) -> None:
    model.save(tmp_path, dtype=torch.float16)
    assert (tmp_path / "model.safetensors").stat().st_size < 0.7 * sum(4 * p.numel() for p in model.module.parameters())
    again = load(tmp_path)
    assert {p.dtype for p in again.module.parameters()} == {torch.float32}
    for (name, p), (_, q) in zip(model.module.named_parameters(), again.module.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-6, msg=name)
    # The tokenizer is still the one of its identity, or this would not listen.
    assert again.score(clip).mean == pytest.approx(model.score(clip).mean, abs=0.01)


def test_statistics_are_not_rounded(tmp_path: Path) -> None:
    recipe = find_recipe("mini-gslm").tiny()
    recipe = replace(recipe, vocoder=GriffinLim.Config("units"), stages=())
    model = Model(recipe)
    assert isinstance(model.vocoder, GriffinLim)
    model.vocoder.count.fill_(100_001.0)  # over what half precision holds
    model.save(tmp_path, dtype=torch.float16)
    vocoder = load(tmp_path).vocoder
    assert isinstance(vocoder, GriffinLim)
    assert torch.equal(vocoder.count, model.vocoder.count)


def test_weights_that_do_not_fit_are_refused_by_name(copy: Path) -> None:
    path = copy / "model.safetensors"
    tensors = load_file(path)
    save_file({n: t for n, t in tensors.items() if n != "lms.ulm.start"}, path)
    with pytest.raises(CheckpointError, match=r"has nothing for 'lms\.ulm\.start', but the recipe needs \(\d+,\)"):
        load(copy)
    save_file({**tensors, "lms.ulm.start": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"has \(3,\) for 'lms\.ulm\.start'"):
        load(copy)
    save_file({**tensors, "lms.other": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"'lms\.other', which the recipe does not know"):
        load(copy)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is damaged"):
        load(copy)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load(copy)


def test_descriptions_that_cannot_be_read(copy: Path) -> None:
    retold(copy, lambda data: data.update(format=99))
    with pytest.raises(CheckpointError, match=r"is of format 99, this is 1. Update lalia"):
        load(copy)
    retold(copy, lambda data: data.update(format=1, recipe={"type": "os.path.PurePath"}))
    with pytest.raises(CheckpointError, match="outside lalia"):
        load(copy)
    (copy / "recipe.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        load(copy)
    (copy / "recipe.json").write_text("[]")
    with pytest.raises(CheckpointError, match="is damaged"):
        load(copy)


def test_another_tokenizer_is_refused(copy: Path, clip: Path) -> None:
    path = copy / "model.safetensors"
    tensors = load_file(path)
    tensors["tokenizers.units.centroids"] += 0.001
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"The tokenizer of stream 'units' is \w{12}, but .* trained with \w{12}"):
        load(copy).encode(clip)


def test_tokenizers_alone(model: Model, clip: Path, tmp_path: Path) -> None:
    tokenizer = model.tokenizer("units")
    save_tokenizer(tokenizer, tmp_path / "units")
    again = load_tokenizer(tmp_path / "units")
    assert again.identity == tokenizer.identity
    audio = model.hear(clip)
    assert torch.equal(again.encode(audio).values, tokenizer.encode(audio).values)
    retold(tmp_path / "units", lambda data: data.update(identity="0" * 64))
    with pytest.raises(CheckpointError, match="but 000000000000 was saved"):
        load_tokenizer(tmp_path / "units")
    with pytest.raises(CheckpointError, match="holds no recipe"):
        load(tmp_path / "units")


def test_random_weights_are_the_same_in_every_process(tiny: Path, model: Model) -> None:
    torch.manual_seed(12345)
    assert load(tiny).tokenizer("units").identity == model.identities["units"]


# -- names --------------------------------------------------------------------------------------


def test_finding_models(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lalia.model.shelf.bundled", lambda: {"mini-gslm": tiny})
    assert find("mini-gslm") == find(tiny) == find(str(tiny)) == tiny
    for wrong in ("mini-gslmm", "mini_gslm", "minigslm"):
        with pytest.raises(CheckpointError, match=f"There is no model '{wrong}'. Did you mean 'mini-gslm'?"):
            find(wrong)
    with pytest.raises(CheckpointError, match="Bundled are mini-gslm; or name a directory or a hub id"):
        find("something-else")
    with pytest.raises(CheckpointError, match=r"has no recipe\.json"):
        find(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"is a file. Name the directory"):
        find(tmp_path / "file")
    shutil.copytree(tiny, tmp_path / "run" / "stages" / "pretrain" / "best")
    with pytest.raises(CheckpointError, match=r"is a run that has not ended. Name .*stages/pretrain/best instead"):
        find(tmp_path / "run")


def test_models_from_the_hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def download(hub_id: str, *, local_files_only: bool, **_: Any) -> str:
        asked.append((hub_id, local_files_only))
        if local_files_only:
            raise OSError("it is not in the cache")
        return str(tiny)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    assert find("somebody/model") == tiny
    assert asked == [("somebody/model", True), ("somebody/model", False)]
    (tmp_path / "runs").mkdir()
    with pytest.raises(CheckpointError, match="There is no model 'runs/gslm'"):
        find("runs/gslm")
    assert len(asked) == 2


def test_bundled_models_can_be_read() -> None:
    models = bundled()
    assert {"cascade", "mini", "mini-codec", "mini-gslm"} <= models.keys()
    for folder in models.values():
        assert read_weights(folder)
        if holds(folder, "recipe"):
            assert Model.load(folder).recipe.name
        else:
            assert load_tokenizer(folder).identity


def test_the_package_offers_what_it_says() -> None:
    assert lalia.load is load
    assert lalia.Model is Model
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = lalia.nothing_of_the_kind


def test_voices_by_number_and_by_name(model: Model) -> None:
    first, second = model.recipe.voice_names
    assert model.voice(None) is None
    assert [model.voice(v) for v in (0, "0", first, 1, second, "3")] == [0, 0, 0, 1, 1, 3]
    with pytest.raises(ConfigError, match=rf"no voice '{first[1:]}'\. Did you mean '{first}'\?"):
        model.voice(first[1:])
    for wrong in (4, -1, "4", "§"):
        with pytest.raises(ConfigError, match=f"Give a number from 0 to 3, or {first}, {second}"):
            model.voice(wrong)
    named = replace(model.recipe, voices=("anna", "ben"))
    assert named.voice_names == ("anna", "ben")


def test_voices_sound_different(model: Model, clip: Path) -> None:
    units = model.encode(clip)
    names = model.recipe.voice_names
    first, named, other = (model.decode(units, voice=v).samples for v in (None, *names))
    assert torch.equal(first, named)
    assert not torch.equal(first, other)


def test_the_stream_of_speech_is_known_without_building_anything(model: Model) -> None:
    assert model.speech_stream == "units"
    silent = replace(model.recipe.streams["units"], tokenizer=_Text())
    assert silent.sample_rate is None
    model = Model(model.recipe)
    model.recipe = replace(model.recipe, streams={"units": silent})
    with pytest.raises(ConfigError, match="has no stream of speech"):
        _ = model.speech_stream


class _Text(type(find_recipe("mini-gslm").streams["units"].tokenizer)):  # type: ignore[misc]
    """A tokenizer that reads no sound."""

    sample_rate = None

    def __init__(self) -> None:
        super().__init__("none", clusters=50, deduplicate=True)


# -- listening ----------------------------------------------------------------------------------


def test_audio_may_be_a_path_samples_or_audio(model: Model, clip: Path) -> None:
    audio = Audio.load(clip)
    scores = [model.score(a) for a in (clip, str(clip), audio, (audio.samples[0, 0].numpy(), RATE))]
    assert scores.count(scores[0]) == 4
    for bad in (Audio(torch.zeros(RATE), RATE), Audio(torch.full((RATE,), math.nan), RATE)):
        with pytest.raises(AudioError, match=r"silent|NaN"):
            model.score(bad)


def test_long_recordings_give_the_same_tokens_in_pieces(
    model: Model, noise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = Audio(noise(40.3)[:, 0], RATE)
    whole = model.encode(audio)["units"]
    calls: list[int] = []
    tokenizer = model.tokenizer("units")
    plain = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda *a, **k: calls.append(1) or plain(*a, **k))
    monkeypatch.setattr(model_module, "_PIECE_SECONDS", 6.0)
    pieces = model.encode(audio)["units"]
    assert len(calls) == 6
    assert torch.equal(pieces.values, whole.values)
    assert pieces.durations is not None
    assert whole.durations is not None
    assert torch.equal(pieces.durations, whole.durations)
    assert torch.equal(pieces.lengths, whole.lengths)


# -- continuing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("prompt_seconds", "seconds"), [(3.0, 2.0), (1.0, 0.5), (None, 1.0), (60.0, 1.0)])
def test_a_continuation_lasts_as_long_as_asked(
    model: Model, clip: Path, prompt_seconds: float | None, seconds: float
) -> None:
    made = model.continue_(clip, prompt_seconds=prompt_seconds, seconds=seconds)
    heard = min(prompt_seconds or 5.0, 5.0)
    assert made.prompt_seconds == pytest.approx(heard, abs=0.021)
    assert made.audio.seconds == pytest.approx(made.prompt_seconds + seconds, abs=0.001)
    assert made.tokens > 0
    assert made.timings.keys() == {"encode_seconds", "generate_seconds", "vocode_seconds"}
    assert all(t >= 0 for t in made.timings.values())


def test_seeds_repeat_and_differ(model: Model, clip: Path) -> None:
    def samples(**options: Any) -> torch.Tensor:
        return model.continue_(clip, prompt_seconds=1.0, seconds=0.4, **options).audio.samples

    first, again, other = (samples(seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # The prompt is spoken alike, but for where what comes after it reaches back.
    assert torch.equal(first[..., : RATE // 2], other[..., : RATE // 2])
    assert torch.equal(samples(seed=1, temperature=0.0), samples(seed=2, temperature=0.0))


def test_temperature_holds_also_where_the_stream_has_settings_of_its_own(model: Model, clip: Path) -> None:
    lm: Any = model.lms["ulm"]
    sampler = replace(lm.config.sampler, streams={"units": lm.config.sampler.default})
    first, second = (
        model.continue_(clip, seconds=1.0, sampler=sampler, temperature=0.0, seed=s).audio.samples for s in (1, 2)
    )
    assert torch.equal(first, second)


def test_no_end_cuts_a_continuation_short(model: Model, clip: Path) -> None:
    lm: Any = model.lms["ulm"]
    eager = Model(model.recipe, learned=model.learned, identities=model.identities)
    eager.module.load_state_dict(model.module.state_dict())
    table = eager.lms["ulm"].tables["units"].embedding.weight  # type: ignore[union-attr, index]
    # A model that always wants to stop: the end's row is the hidden state itself, so to say.
    with torch.no_grad():
        hidden = lm(lm.pack({"units": replace(model.encode(clip)["units"], durations=None)}))[0].mean(0)
        table[50] = 100 * hidden
    assert eager.continue_(clip, seconds=1.0).audio.seconds == pytest.approx(4.0, abs=0.03)


def test_a_continuation_longer_than_the_context(model: Model, clip: Path) -> None:
    recipe = override(model.recipe, "lms.ulm.backbone.context", "64")
    short = Model(recipe, learned=model.learned, identities=model.identities)
    short.module.load_state_dict(model.module.state_dict())
    seen = []
    lm: Any = short.lms["ulm"]
    plain = lm.generate
    lm.generate = lambda known, **k: seen.append(known["units"].num_tokens + k["max_steps"]) or plain(known, **k)
    made = short.continue_(clip, seconds=2.5)
    assert made.audio.seconds == pytest.approx(5.5, abs=0.03)
    assert len(seen) > 2
    assert max(seen) <= 62


def test_a_vocoder_that_finds_durations_itself(clip: Path) -> None:
    """GSLM's: attention decides how long units last, so what was generated is only known when it is spoken."""
    torch.manual_seed(0)
    model = Model(find_recipe("gslm").tiny())
    made = model.continue_(clip, prompt_seconds=1.0, seconds=1.5)
    assert made.audio.sample_rate == 22050
    assert made.audio.seconds == pytest.approx(made.prompt_seconds + 1.5, abs=0.021)


def test_what_a_model_cannot_do(model: Model, clip: Path) -> None:
    mute = Model(replace(model.recipe, vocoder=None, stages=()))
    with pytest.raises(ConfigError, match="has no vocoder"):
        mute.continue_(clip)
    with pytest.raises(ConfigError, match="has no vocoder"):
        mute.resynthesize(clip)
    dumb = Model(replace(model.recipe, lms={}, stages=()))
    with pytest.raises(ConfigError, match="has no language model of 'units'"):
        dumb.score(clip)
    for seconds in (0, -1, math.nan, math.inf, 601):
        with pytest.raises(ConfigError, match="was asked for"):
            model.continue_(clip, seconds=seconds)


# -- scoring ------------------------------------------------------------------------------------


def naive_score(lm: Any, codes: list[int], window: int) -> tuple[float, float]:
    """Token by token: each under what stands before it in the first window that it is in."""
    starts, end = [0], window
    while end < len(codes):
        starts.append(min(starts[-1] + window // 2, len(codes) - window))
        end = starts[-1] + window
    total = 0.0
    for t in range(len(codes)):
        start = next(s for s in starts if s <= t < s + window)
        part = torch.tensor(codes[start : t + 1])[None, None]
        total += float(lm.log_prob({"units": TokenSequence(part, torch.tensor([t + 1 - start]))})["units"][0, 0, -2])
    last = torch.tensor(codes[starts[-1] :])[None, None]
    ends = lm.log_prob({"units": TokenSequence(last, torch.tensor([last.shape[2]]))})["units"][0, 0, -1]
    return total, float(ends)


@pytest.mark.parametrize(("length", "context"), [(9, 12), (10, 12), (11, 12), (15, 12), (16, 12), (37, 12), (5, 4)])
def test_scores_in_windows_equal_the_naive_ones(model: Model, length: int, context: int) -> None:
    lm: Any = model.lms["ulm"]
    codes = torch.randint(0, 50, (length,)).tolist()
    tokens = TokenSequence(torch.tensor(codes)[None, None], torch.tensor([length]))
    made = score(lm, {"units": tokens}, specs=model.specs, context=context)
    total, end = naive_score(lm, codes, context - 2)
    assert made.tokens == length
    assert made.sum == pytest.approx(total, abs=1e-3)
    assert made.end == pytest.approx(end, abs=1e-3)
    assert made.mean == pytest.approx(total / length, abs=1e-4)


def test_several_at_once_score_as_they_do_alone(model: Model, clip: Path) -> None:
    whole = Audio.load(clip)
    pieces = [whole, whole.cut(0.0, 0.7), whole.cut(0.4, 1.1), whole]
    together = model.score_all(pieces)
    assert together[0] == together[3]
    for one, piece in zip(together, pieces, strict=True):
        alone = model.score(piece)
        assert one.log_probs == pytest.approx(alone.log_probs, abs=1e-4)
        assert one.starts == alone.starts
        assert one.end == pytest.approx(alone.end, abs=1e-4)


def test_the_times_of_scored_tokens_are_those_of_their_frames(model: Model, clip: Path) -> None:
    units = model.encode(clip)["units"]
    starts = np.concatenate([[0], np.cumsum(units.durations[0].numpy())[:-1]]) / 50  # type: ignore[index]
    assert model.score(clip).starts == pytest.approx(starts.tolist())


@pytest.mark.parametrize(("name", "streams"), [("pgslm", 3), ("spirit_lm", 1), ("audiolm", 1)])
def test_what_is_made_of_the_sound_is_scored(name: str, streams: int) -> None:
    """Prosody with its units; speech alone of what also writes; of a cascade, the first."""
    spoken = Model(find_recipe(name).tiny())
    recording = Audio.load(Path(__file__).parents[1] / "examples" / "question.flac")
    for stream in spoken.recipe.streams:
        tokenizer = spoken.tokenizer(stream)
        if not getattr(tokenizer, "fitted", True):
            tokenizer.fit([recording])
    found = spoken.score(recording)
    units = spoken.listener.hear({None: recording}, [spoken.speech_stream])[spoken.speech_stream]
    assert found.tokens == streams * int(units.lengths[0])
    assert max(found.starts) < recording.seconds
    assert math.isfinite(found.sum)
    (again,) = spoken.score_all([recording])
    assert again.sum == pytest.approx(found.sum, rel=1e-5)


def test_what_is_not_in_a_recording_cannot_be_scored(clip: Path) -> None:
    with pytest.raises(ConfigError, match="'text' beside 'moshi'"):
        Model(find_recipe("moshi").tiny()).score(clip)


def test_the_context_is_the_backbone_s(model: Model) -> None:
    lm: Any = model.lms["ulm"]
    assert context_of(lm) == lm.config.backbone.context == 3072


def test_likelier_sound_scores_higher(model: Model, clip: Path) -> None:
    """A model with a table that knows one unit by heart prefers its sound."""
    lm: Any = model.lms["ulm"]
    codes = model.encode(clip)["units"].values[0, 0].numpy()
    common = int(np.bincount(codes).argmax())
    eager = Model(model.recipe)
    eager.module.load_state_dict(model.module.state_dict())
    with torch.no_grad():
        hidden = lm(lm.pack({"units": replace(model.encode(clip)["units"], durations=None)}))[0].mean(0)
        eager.lms["ulm"].tables["units"].embedding.weight[common] += hidden  # type: ignore[union-attr, index]
    judge: Any = eager.lms["ulm"]
    same, other = (
        score(judge, {"units": TokenSequence(torch.full((1, 1, 20), c), torch.tensor([20]))}, specs=model.specs)
        for c in (common, (common + 1) % 50)
    )
    assert same.sum > other.sum
