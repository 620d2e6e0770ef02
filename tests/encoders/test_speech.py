import contextlib
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.checkpoints.quiet import quiet
from lalia.config import from_dict, to_dict
from lalia.encoders import SpeechEncoder, Windows
from lalia.errors import ConfigError, WeightsError
from lalia.streaming import reset_rows, select_rows
from lalia.streams import Continuous

Make = Callable[..., Path]
Speech = Callable[..., Tensor]

WAVES = ["hubert", "hubert-large", "wav2vec2", "wav2vec2-large", "wavlm", "wavlm-large", "data2vec", "unispeech",
         "unispeech-sat", "conformer"]  # fmt: skip
ALL = [*WAVES, "w2v-bert", "whisper"]
DIFFERENT = ["hubert", "wavlm-large", "w2v-bert", "whisper"]
"""One of each kind of input and of norm."""

SHORT = Windows(block=0.5, before=0.3, after=0.2)


def build(path: Path, **options: Any) -> SpeechEncoder:
    encoder: SpeechEncoder = SpeechEncoder.Config(str(path), **{"windows": SHORT, **options}).build()
    return encoder


def audio(x: Tensor, rate: int = 16000) -> Audio:
    return Audio(x, rate)


def upstream(path: Path) -> Any:
    from transformers import AutoModel

    with quiet():
        return AutoModel.from_pretrained(path).eval()


# -- the same as upstream -------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("name", WAVES)
@torch.no_grad()
def test_hidden_states_are_those_of_transformers(make: Make, speech: Speech, name: str, normalize: bool) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    path, x = make(name, normalize=normalize), speech(9600)
    theirs = Wav2Vec2FeatureExtractor(do_normalize=normalize)(x.numpy(), sampling_rate=16000, return_tensors="pt")
    # The 80 samples that the convolutions want after the last frame, which theirs leaves out.
    padded = nn.functional.pad(theirs.input_values, (0, 80))
    states = upstream(path)(padded, output_hidden_states=True)
    for layer in (1, 2, 3, None):
        encoder = build(path, layer=layer, windows=Windows())
        got = encoder.encode(audio(x)).values
        wanted = states.last_hidden_state if layer in (3, None) else states.hidden_states[layer]
        assert got.shape == wanted.shape == (1, 30, 16)
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    cut = upstream(path)(theirs.input_values, output_hidden_states=True).hidden_states[1]
    assert cut.shape[1] == 29


@torch.no_grad()
def test_adapter_is_left_out(make: Make, speech: Speech) -> None:
    x = speech(9600)
    encoder = build(make("wav2vec2-adapter", normalize=False))
    states = upstream(make("wav2vec2-adapter", normalize=False))(
        nn.functional.pad(x, (0, 80))[None], output_hidden_states=True
    )
    assert states.last_hidden_state.shape[1] < 30
    torch.testing.assert_close(encoder.encode(audio(x)).values, states.hidden_states[-1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_hidden_states_of_w2v_bert(make: Make, speech: Speech) -> None:
    from transformers import SeamlessM4TFeatureExtractor

    path, x = make("w2v-bert"), speech(9600)
    theirs = SeamlessM4TFeatureExtractor()(
        nn.functional.pad(x, (0, 240)).numpy(), sampling_rate=16000, return_tensors="pt"
    )
    states = upstream(path)(theirs.input_features, output_hidden_states=True)
    for layer in (1, 2, 3, None):
        got = build(path, layer=layer, windows=Windows()).encode(audio(x)).values
        assert got.shape == (1, 30, 16)
        torch.testing.assert_close(got, states.hidden_states[layer or 3], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_hidden_states_of_whisper(make: Make, speech: Speech) -> None:
    """transformers wants exactly ``max_source_positions`` frames, so there they are as many as the audio has."""
    from transformers import WhisperFeatureExtractor

    path, x = make("whisper", max_source_positions=75), speech(24000)
    mel = WhisperFeatureExtractor()(x.numpy(), sampling_rate=16000, return_tensors="pt", padding=False).input_features
    states = upstream(path).get_encoder()(mel, output_hidden_states=True)
    for layer in (1, 2, 3, None):
        encoder = build(path, layer=layer, windows=Windows(block=1.0, before=0.3, after=0.2))
        got = encoder(x)
        assert got.shape == (75, 16)
        torch.testing.assert_close(got, states.hidden_states[layer or 3][0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bins", [80, 128])
def test_mel_of_whisper(make: Make, speech: Speech, bins: int) -> None:
    from transformers import WhisperFeatureExtractor

    encoder = build(make("whisper", num_mel_bins=bins))
    for n in (320, 4800, 32000):
        x = speech(n)
        theirs = WhisperFeatureExtractor(feature_size=bins)(x.numpy(), sampling_rate=16000, padding=False)
        wanted = torch.as_tensor(theirs.input_features[0])
        got = encoder.mel(x)
        assert got.shape == wanted.shape == (bins, n // 160)
        torch.testing.assert_close(got, wanted, atol=2e-4, rtol=1e-4)


# -- only what is used ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hubert", "w2v-bert", "whisper"])
def test_only_the_layers_that_are_read_are_kept(make: Make, name: str) -> None:
    sizes = [sum(p.numel() for p in build(make(name), layer=k).parameters()) for k in (1, 2, 3)]
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] > 0
    names = [n for n, _ in build(make(name), layer=2).named_parameters()]
    assert not any("decoder" in n for n in names)
    assert any(re.search(r"(model|encoder)\.layers\.1\.", n) for n in names)
    assert not any(re.search(r"(model|encoder)\.layers\.2\.", n) for n in names)


def test_nothing_is_trained_and_features_can_be_trained_on(make: Make, speech: Speech) -> None:
    encoder = build(make("hubert"))
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(m.training for m in encoder.modules())
    project = nn.Linear(16, 4)
    project(encoder.encode(audio(speech(3200))).values).sum().backward()
    assert project.weight.grad is not None


def test_what_is_known_before_and_after_building(make: Make) -> None:
    encoder = build(make("hubert"), pool=2)
    assert encoder.spec.kind == Continuous(16)
    assert encoder.spec.frame_rate == 25.0
    assert (encoder.dim, encoder.layer, encoder.sample_rate, encoder.config.sample_rate) == (16, 3, 16000, 16000)
    assert from_dict(to_dict(encoder.config)) == encoder.config


# -- frames ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoders(make: Make) -> dict[tuple[str, int], SpeechEncoder]:
    return {(name, pool): build(make(name), pool=pool, layer=2) for name in DIFFERENT for pool in (1, 2, 3)}


@settings(max_examples=30)
@given(n=st.integers(0, 30_000), name=st.sampled_from(DIFFERENT), pool=st.sampled_from([1, 2, 3]))
def test_number_of_frames(
    encoders: dict[tuple[str, int], SpeechEncoder], speech: Speech, n: int, name: str, pool: int
) -> None:
    got = encoders[name, pool].encode(audio(speech(n)))
    assert got.lengths.tolist() == [-(-n // (320 * pool))]
    assert got.values.shape == (1, int(got.lengths[0]), 16)
    assert bool(got.values.isfinite().all())


@pytest.mark.parametrize("name", DIFFERENT)
def test_pool_is_the_average(encoders: dict[tuple[str, int], SpeechEncoder], speech: Speech, name: str) -> None:
    x = audio(speech(320 * 24))
    fine, coarse = (encoders[name, pool].encode(x).values for pool in (1, 3))
    torch.testing.assert_close(coarse, fine.unflatten(1, (8, 3)).mean(dim=2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", DIFFERENT)
def test_other_rates_and_channels(encoders: dict[tuple[str, int], SpeechEncoder], speech: Speech, name: str) -> None:
    x = speech(16000)
    plain = encoders[name, 1].encode(audio(x)).values
    stereo = encoders[name, 1].encode(Audio(torch.stack([0.5 * x, 1.5 * x]), 16000)).values
    torch.testing.assert_close(stereo, plain, atol=1e-4, rtol=1e-4)
    other = encoders[name, 1].encode(audio(x).to(44100))
    assert other.lengths.tolist() == [50]


@settings(max_examples=20)
@given(
    lengths=st.lists(st.integers(0, 25_000), min_size=1, max_size=4),
    name=st.sampled_from(DIFFERENT),
)
def test_row_does_not_depend_on_the_others(
    encoders: dict[tuple[str, int], SpeechEncoder], speech: Speech, lengths: list[int], name: str
) -> None:
    rows = [audio(speech(n, seed=n)) for n in lengths]
    encoder = encoders[name, 1]
    together = encoder.encode(Audio.batch(rows))
    for b, row in enumerate(rows):
        assert torch.equal(together.row(b).values, encoder.encode(row).values)


# -- windows --------------------------------------------------------------------------------------


def test_long_audio_is_cut_with_the_given_overlap(make: Make, speech: Speech) -> None:
    """Block by block by hand: what is kept of each window, and what lies around it."""
    encoder = build(make("whisper"), windows=Windows(block=0.5, before=0.3, after=0.2))
    x = speech(int(2.1 * 16000) + 100)
    before, block, after = 4800, 8000, 3200
    pieces, done = [], 0
    while True:
        start, last = max(done - before, 0), done + block + after >= len(x)
        frames = encoder(x[start : None if last else done + block + after])
        first = (done - start) // 320
        pieces.append(frames[first:] if last else frames[first : first + 25])
        done += block
        if last:
            break
    assert len(pieces) == 4
    got = encoder.encode(audio(x)).values[0]
    assert torch.equal(got, torch.cat(pieces))
    assert not torch.allclose(got, encoder(x), atol=1e-3), "a window hears less than all"


@pytest.mark.parametrize("name", DIFFERENT)
def test_window_that_holds_all_changes_nothing(make: Make, speech: Speech, name: str) -> None:
    x = speech(int(0.7 * 16000))
    encoder = build(make(name))
    assert torch.equal(encoder.encode(audio(x)).values[0], encoder(x))


CHUNKS = st.lists(st.integers(0, 9000), max_size=8)


@settings(max_examples=40)
@given(
    chunks=CHUNKS,
    rest=st.integers(0, 20_000) | st.sampled_from([8000, 11_200, 19_200, 27_200]),
    name=st.sampled_from(DIFFERENT),
    pool=st.sampled_from([1, 2, 3]),
)
def test_stream_gives_what_the_whole_gives(
    encoders: dict[tuple[str, int], SpeechEncoder], speech: Speech, chunks: list[int], rest: int, name: str, pool: int
) -> None:
    encoder, x = encoders[name, pool], speech(sum(chunks) + rest)
    whole = encoder.encode(audio(x)).values
    state, got, start = encoder.init_state(1), [], 0
    for n in [*chunks, rest]:
        got.append(encoder.encode(audio(x[start : start + n]), state).values)
        start += n
        assert len(state.samples[0]) <= 16000 * 1.1 + max(chunks, default=0) + rest, "the past is let go"
    got.append(encoder.encode(audio(x[:0]), state, final=True).values)
    assert torch.equal(torch.cat(got, dim=1), whole)
    # And the state is that of a new stream.
    assert torch.equal(encoder.encode(audio(x), state, final=True).values, whole)


@pytest.mark.parametrize("seconds", [0.7, 1.2, 1.7])
def test_stream_that_ends_where_a_window_does(make: Make, speech: Speech, seconds: float) -> None:
    """Whether a window is the last decides what comes of its end, so the stream waits until it knows."""
    encoder, x = build(make("whisper")), speech(int(seconds * 16000))
    state = encoder.init_state(1)
    parts = [encoder.encode(audio(x), state), encoder.encode(audio(x[:0]), state, final=True)]
    assert torch.equal(torch.cat([p.values for p in parts], dim=1), encoder.encode(audio(x)).values)


def test_delay_of_a_stream_is_the_block_and_what_comes_after(make: Make, speech: Speech) -> None:
    encoder, state = build(make("hubert")), None
    state = encoder.init_state(1)
    assert encoder.encode(audio(speech(11_200)), state).num_tokens == 0
    assert encoder.encode(audio(speech(1)), state).num_tokens == 25


def test_rows_of_a_stream_come_and_go(make: Make, speech: Speech) -> None:
    encoder = build(make("hubert"))
    xs = [speech(30_000, seed=i) for i in range(3)]
    wanted = [encoder.encode(audio(x)).values[0] for x in xs]
    state = encoder.init_state(2)
    got: dict[int, list[Tensor]] = {0: [], 1: [], 2: []}

    def push(ids: list[int], start: list[int], stop: list[int], final: bool = False) -> None:
        batch = Audio.batch([audio(xs[i][a:b]) for i, a, b in zip(ids, start, stop, strict=True)])
        out = encoder.encode(batch, state, final=final)
        for b, i in enumerate(ids):
            got[i].append(out.row(b).values[0])

    push([0, 1], [0, 0], [12_345, 20_000])
    state = select_rows(state, torch.tensor([1, 0]))
    push([1, 0], [20_000, 12_345], [30_000, 13_000])
    # Row 0 leaves and another takes its place.
    got[1].append(encoder.encode(audio(xs[1][:0]), select_rows(state, torch.tensor([0])), final=True).values[0])
    state = reset_rows(state, encoder.init_state(2), torch.tensor([True, False]))
    push([2, 0], [0, 13_000], [30_000, 30_000], final=True)
    for i in range(3):
        assert torch.equal(torch.cat(got[i]), wanted[i])


def test_stream_must_come_at_the_rate_of_the_encoder(make: Make, speech: Speech) -> None:
    encoder = build(make("hubert"))
    with pytest.raises(ConfigError, match=r"A stream came at 8000 Hz\. Resample it to 16000 Hz as it comes\."):
        encoder.encode(Audio(speech(800), 8000), encoder.init_state(1))
    with pytest.raises(ConfigError, match="A stream of 2 rows got audio of 1"):
        encoder.encode(audio(speech(800)), encoder.init_state(2))


@pytest.mark.parametrize(
    ("block", "before", "after"), [(0, 1, 1), (-1, 0, 0), (1, -1, 0), (1, 0, -0.1), (float("nan"), 0, 0)]
)
def test_windows_that_cannot_be(block: float, before: float, after: float) -> None:
    with pytest.raises(ConfigError, match="Give a block above 0 s and contexts of at least 0 s"):
        Windows(block=block, before=before, after=after)


def test_windows_longer_than_whisper_hears(make: Make) -> None:
    """300 positions are 6 s."""
    assert build(make("whisper"), windows=Windows(block=4.0, before=1.0, after=1.0)).family == "whisper"
    with pytest.raises(ConfigError, match=r"hears at most 6 s at once, but the windows are 6\.02 s\. Shorten"):
        build(make("whisper"), windows=Windows(block=4.02, before=1.0, after=1.0))
    # Each length is rounded to whole frames, here of 0.14 s, and may grow by that.
    with pytest.raises(ConfigError, match=r"the windows are 6\.02 s"):
        build(make("whisper"), pool=7, windows=Windows(block=4.0, before=0.99, after=0.99))


# -- identity -------------------------------------------------------------------------------------


def test_fingerprint_changes_with_all_that_decides_the_output(make: Make) -> None:
    first = build(make("hubert"))
    others = [
        build(make("hubert", seed=1)),
        build(make("hubert"), layer=2),
        build(make("hubert", normalize=False)),
        build(make("hubert", num_attention_heads=4)),
        build(make("hubert", layer_norm_eps=1e-3)),
        build(make("wav2vec2")),
        build(make("whisper")),
        build(make("whisper", seed=1)),
    ]
    prints = [e.fingerprint for e in (first, *others)]
    assert len(set(prints)) == len(prints)
    assert build(make("hubert"), windows=Windows(), pool=2).fingerprint == first.fingerprint
    assert build(make("hubert", normalize=True)).fingerprint == first.fingerprint, "what is the default may be left out"


# -- without weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_random_weights_are_the_same_each_time(
    architectures: dict[str, dict[str, Any]], speech: Speech, name: str
) -> None:
    config = SpeechEncoder.Config("tiny", layer=2, pretrained=False, architecture=architectures[name], windows=SHORT)
    torch.manual_seed(1)
    first = config.build()
    state = torch.random.get_rng_state()
    second = from_dict(json.loads(json.dumps(to_dict(config)))).build()
    assert torch.equal(state, torch.random.get_rng_state()), "whoever draws numbers around it is not disturbed"
    assert first.fingerprint == second.fingerprint
    assert torch.equal(first.encode(audio(speech(5000))).values, second.encode(audio(speech(5000))).values)


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hubert", "whisper"])
@pytest.mark.parametrize("layer", [0, -1, 4])
def test_layer_that_is_not_there(make: Make, name: str, layer: int) -> None:
    with pytest.raises(ConfigError, match=rf"has 3 layers, not layer {layer}\. Count from 1\."):
        build(make(name), layer=layer)


def test_configurations_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"averages 0 frames\. Give pool at least 1\."):
        SpeechEncoder.Config("x", pool=0)
    with pytest.raises(ConfigError, match="'x' without weights needs its architecture"):
        SpeechEncoder.Config("x", pretrained=False)
    with pytest.raises(ConfigError, match="needs its architecture with 'model_type'"):
        SpeechEncoder.Config("x", pretrained=False, architecture={"hidden_size": 3}).build()
    with pytest.raises(ConfigError, match="configuration that cannot be used"):
        SpeechEncoder.Config("x", pretrained=False, architecture={"model_type": "no such thing"}).build()


def test_models_that_are_no_speech_encoders(make: Make, tmp_path: Path) -> None:
    for settings_, message in (
        ({"model_type": "gpt2"}, "is a gpt2 and no speech encoder"),
        ({"model_type": "hubert", "conv_stride": [5, 2, 2, 2, 2, 2, 1]}, "has frames of 160 samples, not of 320"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(settings_))
        (tmp_path / "model.safetensors").write_bytes(b"")
        with pytest.raises(WeightsError, match=message):
            build(tmp_path)


def test_another_frame_rate() -> None:
    architecture = {
        "model_type": "hubert",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "conv_dim": [16] * 8,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2, 2],
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
    }
    encoder: SpeechEncoder = SpeechEncoder.Config("slow", pretrained=False, architecture=architecture).build()
    assert encoder.spec.frame_rate == encoder.config.frame_rate == 25.0
    for samples in (640, 641, 6400, 16000):
        assert encoder(torch.randn(samples)).shape == (-(-samples // 640), 16)
    sound = torch.randn(640 * 40)
    sound = (sound - sound.mean()) / sound.std(unbiased=False)
    theirs = encoder.model(torch.nn.functional.pad(sound, (0, 80))[None]).last_hidden_state[0]
    assert torch.allclose(encoder(sound), theirs, atol=1e-4)


def test_weights_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights named 'no-such-encoder'"):
        build(Path("no-such-encoder"))
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        build(tmp_path)


def test_damaged_weights(make: Make, tmp_path: Path) -> None:
    shutil.copytree(make("hubert"), tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=r"cannot be loaded \(.*\)\. Fetch it again"):
        build(tmp_path)
    file.write_bytes(data)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace("16", "24"))
    with pytest.raises(WeightsError, match="cannot be loaded"):
        build(tmp_path)


@pytest.mark.parametrize("name", ["hubert", "whisper"])
def test_incomplete_weights_are_not_made_up(make: Make, tmp_path: Path, name: str) -> None:
    """transformers would draw them at random, and warn."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(make(name), tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    gone = next(n for n in tensors if "layers.1." in n and "decoder" not in n)
    save_file(
        {n: t for n, t in tensors.items() if n != gone}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(WeightsError, match=r"lacks 1 weights, '.*layers\.1\..*' among them"):
        build(tmp_path)
    assert build(tmp_path, layer=1).layer == 1, "what is not read may be missing"


def test_damaged_preprocessor(make: Make, tmp_path: Path) -> None:
    shutil.copytree(make("hubert"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"damaged preprocessor_config\.json"):
        build(tmp_path)


# -- quiet ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hubert", "whisper"])
def test_nothing_is_printed(make: Make, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    build(make(name), layer=1)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_quiet_leaves_everything_as_it_was() -> None:
    from transformers.utils import logging as theirs

    for bars, verbosity in ((True, logging.INFO), (False, logging.WARNING)):
        (theirs.enable_progress_bar if bars else theirs.disable_progress_bar)()
        theirs.set_verbosity(verbosity)
        with contextlib.suppress(RuntimeError), quiet():
            assert not theirs.is_progress_bar_enabled()
            raise RuntimeError
        assert theirs.is_progress_bar_enabled() is bars
        assert theirs.get_verbosity() == verbosity
    theirs.enable_progress_bar()
