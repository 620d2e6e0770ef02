from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError, LayoutError
from lalia.model import load_tokenizer, save_tokenizer
from lalia.nn.frame_net import FrameNet
from lalia.nn.fsq import FSQ
from lalia.nn.quantize import ResidualVQ
from lalia.nn.quantize_parts import GroupedResidualVQ, SplitResidualVQ
from lalia.nn.seanet import SEANet
from lalia.nn.transformer import Transformer
from lalia.nn.windowed import WindowTransformer
from lalia.streaming import reset_rows, select_rows
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.tokenizers import Codec, SpeechTokenizer
from lalia.vocoders import CodecDecoder

TRANSFORMER = Transformer.Config(num_layers=2, num_heads=2, dim=16, ffn_dim=32, window=5)
PLAIN = SEANet((2, 4), 4, 16)
CODECS = {
    "residual": Codec.Config(1600, PLAIN, ResidualVQ.Config(16, 3)),
    "frames": Codec.Config(
        1600, FrameNet(16, 16, width=16, ffn_dim=32, num_layers=2, n_fft=24, bins=8), ResidualVQ.Config(16, 3)
    ),
    "grouped": Codec.Config(1600, PLAIN, GroupedResidualVQ.Config(2, ResidualVQ.Config(16, 2))),
    "fsq": Codec.Config(1600, replace(PLAIN, activation="snake", num_residual=2, shortcut=True), FSQ.Config((4, 4, 3))),
    "split": Codec.Config(
        1600,
        replace(PLAIN, transformer=TRANSFORMER, resample=2),
        SplitResidualVQ.Config(16, 4, project=8),
        num_codebooks=3,
    ),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def loud(codec):
    """Weights large enough for every path to matter, and codebooks that fit what comes."""
    with torch.no_grad():
        for name, p in codec.named_parameters():
            if p.ndim > 1 and "conv.weight" in name:
                p.copy_(torch.randn_like(p) * 0.6 / (p[0].numel() / 2) ** 0.5)
            elif "scale" in name:
                p.fill_(1.0)
        codec.quantizer.fit(codec.frames(torch.randn(4, codec.hop * 40)))
    codec.__dict__.pop("identity", None)
    return codec


@pytest.fixture(scope="module", params=sorted(CODECS))
def codec(request):
    torch.manual_seed(0)
    return loud(CODECS[request.param].build())


def sound(codec, *lengths):
    samples = torch.randn(len(lengths), 1, max(lengths))
    return Audio(samples, codec.sample_rate, torch.tensor(lengths))


def encode_in_pieces(codec, audio, cuts):
    state, rows = codec.init_state(len(audio)), [[] for _ in range(len(audio))]
    ends = [*sorted(cuts), audio.samples.shape[2]]
    for i, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
        piece = Audio(
            audio.samples[:, :, start:stop], audio.sample_rate, (audio.lengths - start).clamp(0, stop - start)
        )
        codes = codec.encode(piece, state, final=i == len(ends) - 1)
        for b, row in enumerate(rows):
            row.append(codes.row(b).values[0])
    return [torch.cat(row, dim=1) for row in rows], state


def decode_in_pieces(codec, codes, cuts):
    state, rows = codec.decoder_state(len(codes)), [[] for _ in range(len(codes))]
    ends = [*sorted(cuts), codes.num_tokens]
    for i, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
        audio = codec.decode(codes.cut(start, stop), state, final=i == len(ends) - 1)
        for b, row in enumerate(rows):
            row.append(audio.row(b).samples[0, 0])
    return [torch.cat(row) for row in rows]


# -- what it is -----------------------------------------------------------------------------------


def test_it_is_a_speech_tokenizer(codec):
    assert isinstance(codec, SpeechTokenizer)
    assert from_dict(to_dict(codec.config)) == codec.config
    kind = codec.spec.kind
    codes = codec.encode(sound(codec, 100))
    assert codes.values.shape == (1, kind.num_codebooks, -(-100 // codec.hop))
    assert codec.spec.frame_rate == codec.sample_rate / codec.hop
    assert 0 <= int(codes.values.min()) <= int(codes.values.max()) < kind.codebook_size
    assert len(codes.values.unique()) > 3
    audio = codec.decode(codes)
    assert audio.samples.shape == (1, 1, codes.num_tokens * codec.hop)
    assert float(audio.samples.std()) > 0.01


def test_other_rates_and_channels_are_brought_to_its_own(codec):
    stereo = Audio(torch.randn(1, 2, 3200), 3200)
    assert codec.encode(stereo).num_tokens == 1600 // codec.hop
    with pytest.raises(ConfigError, match="3200 Hz"):
        codec.encode(stereo, codec.init_state(1))
    with pytest.raises(ConfigError, match="2 rows"):
        codec.encode(sound(codec, 100), codec.init_state(2))


@pytest.mark.parametrize("name", sorted(CODECS))
def test_untrained_codecs_are_the_same_each_time(name):
    first = CODECS[name].build()
    torch.manual_seed(5)
    second = CODECS[name].build()
    assert first.identity == second.identity != replace(CODECS[name], sample_rate=800).build().identity
    tiny = CODECS[name].tiny()
    assert tiny.tiny() == tiny
    assert tiny.spec.frame_rate == CODECS[name].spec.frame_rate
    tiny.build().encode(Audio(torch.randn(1, 1, 64), 1600))


def test_the_full_size_is_mimis():
    """96.2 M parameters, the codebooks included (model card of kyutai/mimi)."""
    transformer = Transformer.Config(
        num_layers=8, num_heads=8, dim=512, ffn_dim=2048, window=250, norm="layer", activation="gelu"
    )
    config = Codec.Config(
        24000, SEANet(transformer=transformer, resample=2), SplitResidualVQ.Config(2048, 32), num_codebooks=8
    )
    assert config.spec == StreamSpec(kind=Discrete(2048, 8), frame_rate=12.5)
    with torch.device("meta"):
        codec = config.build()
    count = sum(p.numel() for p in codec.parameters()) + 32 * 2048 * 256
    assert count == pytest.approx(96.2e6, rel=0.01)


# -- streaming ------------------------------------------------------------------------------------


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 300), min_size=1, max_size=3), st.lists(st.integers(0, 300), max_size=5))
def test_encoding_in_pieces_equals_encoding_whole(codec, lengths, cuts):
    audio = sound(codec, *lengths)
    whole = codec.encode(audio)
    assert whole.lengths.tolist() == [-(-n // codec.hop) for n in lengths]
    rows, _ = encode_in_pieces(codec, audio, [c for c in cuts if c <= max(lengths)])
    for b, row in enumerate(rows):
        assert torch.equal(row, whole.row(b).values[0])
        assert torch.equal(row, codec.encode(audio.row(b)).values[0])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 30), min_size=1, max_size=3), st.lists(st.integers(0, 30), max_size=5))
def test_decoding_in_pieces_equals_decoding_whole(codec, lengths, cuts):
    kind = codec.spec.kind
    codes = TokenSequence(
        torch.randint(0, kind.codebook_size, (len(lengths), kind.num_codebooks, max(lengths))), torch.tensor(lengths)
    )
    whole = codec.decode(codes)
    assert whole.lengths.tolist() == [n * codec.hop for n in lengths]
    for b, row in enumerate(decode_in_pieces(codec, codes, [c for c in cuts if c <= max(lengths)])):
        torch.testing.assert_close(row, whole.row(b).samples[0, 0], atol=1e-5, rtol=0)
        torch.testing.assert_close(row, codec.decode(codes.row(b)).samples[0, 0], atol=1e-5, rtol=0)


def test_what_is_long_goes_through_in_blocks(codec, monkeypatch):
    audio = sound(codec, 400, 37)
    codes = codec.encode(audio)
    samples = codec.decode(codes)
    monkeypatch.setattr("lalia.tokenizers.codec._block", lambda config: 3)
    assert torch.equal(codec.encode(audio).values, codes.values)
    torch.testing.assert_close(codec.decode(codes).samples, samples.samples, atol=1e-5, rtol=0)


def test_a_frame_needs_no_later_sound(codec):
    audio = sound(codec, 20 * codec.hop)
    other = audio.samples.clone()
    other[:, :, 10 * codec.hop :] = torch.randn(10 * codec.hop)
    a, b = codec.encode(audio).values, codec.encode(Audio(other, codec.sample_rate)).values
    assert torch.equal(a[:, :, :10], b[:, :, :10])
    assert not torch.equal(a, b)
    state = codec.init_state(1)
    for i in range(20):  # each frame comes as soon as its last sample is there
        piece = audio.samples[:, :, i * codec.hop : (i + 1) * codec.hop]
        assert torch.equal(codec.encode(Audio(piece, codec.sample_rate), state).values, a[:, :, i : i + 1])


def test_rows_leave_and_join(codec):
    audio, hop = sound(codec, *[12 * codec.hop + 3] * 3), codec.hop
    whole, state, cut = codec.encode(audio).values, codec.init_state(3), 5 * codec.hop + 1

    def piece(start, stop, rows):
        return Audio(audio.samples[rows, :, start:stop], codec.sample_rate)

    codec.encode(piece(0, cut, [0, 1, 2]), state)
    alone = select_rows(state, torch.tensor([2, 0]))
    made = codec.encode(piece(cut, None, [2, 0]), alone, final=True).values
    assert torch.equal(made, whole[[2, 0], :, 5:])
    state = reset_rows(state, codec.init_state(3), torch.tensor([False, True, False]))
    mixed = torch.cat([audio.samples[:1, :, cut : cut + hop], audio.samples[1:2, :, :hop]])
    rows = select_rows(state, torch.tensor([0, 1]))
    made = codec.encode(Audio(mixed, codec.sample_rate), rows).values
    assert torch.equal(made[0, :, :1], whole[0, :, 5:6])
    assert torch.equal(made[1, :, :1], whole[1, :, :1])


# -- the vocoder ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CODECS))
def test_a_decoder_built_apart_agrees_with_the_codec(name, tmp_path):
    config = CODECS[name]
    codec = config.build()
    vocoder = CodecDecoder.Config("user", config).build({"user": config.spec})
    codes = codec.encode(sound(codec, 200))
    torch.testing.assert_close(vocoder.decode({"user": codes}).samples, codec.decode(codes).samples)
    loud(codec)
    codes = codec.encode(sound(codec, 200))
    assert not torch.allclose(vocoder.decode({"user": codes}).samples, codec.decode(codes).samples)
    vocoder.take(codec)
    whole = vocoder.decode({"user": codes})
    torch.testing.assert_close(whole.samples, codec.decode(codes).samples)
    state = vocoder.init_state(1)
    pieces = [
        vocoder.decode({"user": codes.cut(i, i + 1)}, state, final=i == codes.num_tokens - 1)
        for i in range(codes.num_tokens)
    ]
    torch.testing.assert_close(torch.cat([p.samples for p in pieces], dim=2), whole.samples, atol=1e-5, rtol=0)
    assert from_dict(to_dict(vocoder.config)) == vocoder.config


def test_a_decoder_takes_fewer_codebooks_than_the_codec_has(codec):
    specs = {"user": replace(codec.spec, kind=Discrete(codec.spec.kind.codebook_size, 1))}
    vocoder = CodecDecoder.Config("user", codec.config).build(specs).take(codec)
    codes = codec.encode(sound(codec, 200))
    coarse = TokenSequence(codes.values[:, :1], codes.lengths)
    torch.testing.assert_close(vocoder.decode({"user": coarse}).samples, codec.decode(coarse).samples)
    if codec.config.books > 1:
        with pytest.raises(LayoutError, match="1, T"):
            vocoder.decode({"user": codes})


def test_a_decoder_of_another_codec_is_refused():
    a, b = CODECS["residual"], CODECS["split"]
    with pytest.raises(ConfigError, match="its codec makes"):
        CodecDecoder.Config("user", a).build({"user": b.spec})
    with pytest.raises(ConfigError, match="its own codec"):
        CodecDecoder.Config("user", a).build({"user": a.spec}).take(b.build())
    with pytest.raises(ConfigError, match="no codec"):
        CodecDecoder.Config("user", TRANSFORMER)


# -- weights --------------------------------------------------------------------------------------


def test_a_saved_codec_is_the_same(codec, tmp_path):
    save_tokenizer(codec, tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.identity == codec.identity
    audio = sound(codec, 200)
    assert torch.equal(again.encode(audio).values, codec.encode(audio).values)
    with pytest.raises(ConfigError, match="another codec"):
        codec.load_weights({"x": torch.zeros(1)})


def test_normalised_weights_are_folded_for_use():
    config = replace(CODECS["residual"], network=replace(PLAIN, normalize=True))
    codec = config.build()
    plain = codec.plain()
    assert plain.config == CODECS["residual"]
    audio = sound(codec, 200)
    codes = codec.encode(audio)
    assert torch.equal(plain.encode(audio).values, codes.values)
    torch.testing.assert_close(plain.decode(codes).samples, codec.decode(codes).samples, atol=1e-5, rtol=0)


def test_more_codebooks_than_there_are():
    with pytest.raises(ConfigError, match="4 codebooks of 3"):
        replace(CODECS["residual"], num_codebooks=4)


# -- the Transformer with a window ----------------------------------------------------------------


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_a_window_equals_attention_with_a_band(kv_heads):
    config = replace(TRANSFORMER, num_kv_heads=kv_heads)
    transformer, x = WindowTransformer(config, scale=1.0), torch.randn(2, 200, 16)
    made = transformer(x)
    for t in (0, 3, 4, 5, 63, 64, 65, 199):
        # Two layers see twice as far; older frames change nothing.
        start = max(t - 2 * (config.window - 1), 0)
        torch.testing.assert_close(transformer(x[:, start : t + 1])[:, -1], made[:, t], atol=1e-5, rtol=1e-4)
    other = x.clone()
    other[:, 90] += 1
    changed = (transformer(other) - made).abs().amax(dim=(0, 2)) > 1e-4
    assert changed.nonzero()[:, 0].tolist() == list(range(90, 90 + 2 * 4 + 1))
