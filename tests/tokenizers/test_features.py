import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.config import from_dict, to_dict
from lalia.encoders import Windows
from lalia.errors import ConfigError
from lalia.nn.spectral import LogMel
from lalia.streaming import reset_rows, select_rows
from lalia.streams import Continuous, StreamSpec
from lalia.tokenizers import Features, Mel, SpeechTokenizer

RATE = 16000
MEL = Mel.Config(20, n_fft=400, hop=160)
WIDE = Mel.Config(10, sample_rate=8000, n_fft=512, hop=64)
SHORT = Windows(block=0.4, before=0.3, after=0.2)
FEATURES = Features.Config("whisper-small", stack=3, windows=SHORT).tiny()
CONFIGS = {
    "mel": MEL,
    "features": FEATURES,
    "plain features": replace(FEATURES, stack=1, pool=2),
    "filled features": replace(FEATURES, at_least=0.5),
}


def sound(n: int, seed: int = 0, sample_rate: int = RATE) -> Audio:
    chance = torch.Generator().manual_seed(seed)
    return Audio(0.1 * torch.randn(n, generator=chance) * torch.linspace(0.1, 1, n), sample_rate)


def pieces(tokenizer: Any, audio: Audio, cuts: list[int]) -> list[torch.Tensor]:
    """The rows of a batch that is encoded bit by bit."""
    state, rows = tokenizer.init_state(len(audio)), [[] for _ in range(len(audio))]
    ends = [*sorted(c for c in cuts if c < audio.samples.shape[-1]), audio.samples.shape[-1]]
    for start, stop in pairwise([0, *ends]):
        lengths = (audio.lengths - start).clamp(0, stop - start)
        piece = Audio(audio.samples[..., start:stop], audio.sample_rate, lengths)
        made = tokenizer.encode(piece, state, final=stop == ends[-1])
        for b, row in enumerate(rows):
            row.append(made.row(b).values[0])
    return [torch.cat(row) for row in rows]


@pytest.fixture(scope="module", params=CONFIGS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return CONFIGS[request.param].build()


@settings(max_examples=15)
@given(lengths=st.lists(st.integers(0, 6000), min_size=1, max_size=3), cuts=st.lists(st.integers(0, 6000), max_size=6))
@pytest.mark.parametrize("config", [MEL, WIDE], ids=["mel", "wide windows"])
def test_mel_streams_as_it_is_whole(config: Mel.Config, lengths: list[int], cuts: list[int]) -> None:
    mel: Mel = config.build()
    rows = [sound(n, i, config.sample_rate) for i, n in enumerate(lengths)]
    whole = mel.encode(Audio.batch(rows))
    made = pieces(mel, Audio.batch(rows), cuts)
    for b, row in enumerate(rows):
        padded = torch.nn.functional.pad(row.samples[0, 0], (0, -lengths[b] % config.hop))
        wanted = config.mel.build()(padded).T if lengths[b] else torch.zeros(0, config.bins)
        torch.testing.assert_close(whole.row(b).values[0], wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(made[b], wanted, atol=1e-4, rtol=1e-4)


def test_a_stream_of_mel_waits_for_half_a_window() -> None:
    mel: Mel = MEL.build()
    state = mel.init_state(1)
    given = [mel.encode(sound(160), state).num_tokens for _ in range(5)]
    assert given == [0, 1, 1, 1, 1]


@settings(max_examples=5)
@given(
    lengths=st.lists(st.integers(0, 20_000), min_size=1, max_size=2), cuts=st.lists(st.integers(0, 20_000), max_size=4)
)
@pytest.mark.parametrize("name", ["features", "plain features", "filled features"])
def test_features_stream_as_they_are_whole(name: str, lengths: list[int], cuts: list[int]) -> None:
    features: Features = CONFIGS[name].build()
    audio = Audio.batch([sound(n, i) for i, n in enumerate(lengths)])
    whole = features.encode(audio)
    for b, row in enumerate(pieces(features, audio, cuts)):
        assert torch.equal(row, whole.row(b).values[0])


def test_frames_are_stacked_and_the_last_filled_with_zeros() -> None:
    features: Features = FEATURES.build()
    plain = features.encoder.encode(sound(7 * 320)).values[0]
    assert plain.shape == (7, 32)
    made = features.encode(sound(7 * 320)).values[0]
    wanted = torch.zeros(3, 96)
    for t in range(7):
        wanted[t // 3, 32 * (t % 3) : 32 * (t % 3 + 1)] = plain[t]
    assert torch.equal(made, wanted)
    shared: Features = FEATURES.build(encoder=features.encoder)
    assert shared.identity == features.identity


def test_a_short_recording_is_heard_with_the_silence_behind_it() -> None:
    filled, plain = replace(FEATURES, at_least=0.5).build(), FEATURES.build()
    for n in (100, 3000, 9000):
        x = sound(n)
        longer = Audio(torch.nn.functional.pad(x.samples, (0, max(8000 - n, 0))), RATE)
        assert torch.equal(filled.encode(x).values, plain.encode(longer).values)
    rows = Audio(torch.cat([sound(3000).samples, sound(3000, seed=1).samples]), RATE, torch.tensor([3000, 1000]))
    assert torch.equal(filled.encode(rows).row(1).values, filled.encode(rows.row(1)).values)


def test_what_is_known_before_and_after_building(tokenizer: Any) -> None:
    config = tokenizer.config
    assert isinstance(tokenizer, SpeechTokenizer)
    assert tokenizer.spec == config.spec
    assert tokenizer.sample_rate == config.sample_rate
    assert from_dict(to_dict(config)) == config
    assert config.tiny().tiny() == config.tiny()
    made = tokenizer.encode(sound(8100))
    assert made.values.shape[2] == config.spec.kind.dim
    assert made.num_tokens == math.ceil(8100 / RATE * config.spec.frame_rate)
    assert len(tokenizer.identity) == 64


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        ("whisper-tiny.en", 384),
        ("openai/whisper-large-v3", 1280),
        ("whisper-small", 768),
        ("facebook/hubert-base-ls960", 768),
        ("facebook/hubert-large-ll60k", 1024),
        ("utter-project/mHuBERT-147", 768),
        ("facebook/wav2vec2-xls-r-1b", 1280),
        ("microsoft/wavlm-large", 1024),
        ("facebook/w2v-bert-2.0", 1024),
    ],
)
def test_well_known_encoders_need_no_weights_for_their_spec(name: str, dim: int) -> None:
    spec = Features.Config(name, stack=5).spec
    assert spec == StreamSpec(kind=Continuous(5 * dim), frame_rate=10.0)


def test_rows_are_replaced_and_moved(tokenizer: Any) -> None:
    a, b, c = (sound(12_000, seed) for seed in range(3))
    state = tokenizer.init_state(2)
    cut = lambda x, start, stop: Audio(x.samples[..., start:stop], RATE)  # noqa: E731
    first = tokenizer.encode(Audio.batch([cut(a, 0, 7000), cut(b, 0, 7000)]), state)
    state = reset_rows(state, tokenizer.init_state(2), torch.tensor([True, False]))
    state = select_rows(state, torch.tensor([1, 0]))
    second = tokenizer.encode(Audio.batch([cut(b, 7000, 12_000), cut(c, 0, 9000)]), state, final=True)
    joined = torch.cat([first.row(1).values, second.row(0).values], 1)
    torch.testing.assert_close(joined, tokenizer.encode(b).values, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(second.row(1).values, tokenizer.encode(cut(c, 0, 9000)).values, atol=1e-4, rtol=1e-4)


def test_mel_is_what_vocoders_learn_from() -> None:
    assert Mel.Config().mel == LogMel.Config(16000)
    assert Mel.Config(sample_rate=22050).spec.frame_rate == pytest.approx(86.13, abs=0.01)


def test_wrong_configurations_are_refused() -> None:
    with pytest.raises(ConfigError, match="stacks 0 frames"):
        Features.Config("whisper-small", stack=0)
    with pytest.raises(ConfigError, match=r"'someone/else' are is not known\. Set dim"):
        _ = Features.Config("someone/else").spec
    assert Features.Config("someone/else", dim=7).spec.kind == Continuous(7)
    with pytest.raises(ConfigError, match=r"features of 32 values, not 7\. Set dim to 32"):
        replace(FEATURES, dim=7).build()
    with pytest.raises(ConfigError, match=r"Build that of config\.encoder_config"):
        replace(FEATURES, layer=1).build(encoder=FEATURES.build().encoder)
    with pytest.raises(ConfigError, match="Resample it to 16000 Hz"):
        MEL.build().encode(Audio(torch.zeros(800), 8000), MEL.build().init_state(1))
