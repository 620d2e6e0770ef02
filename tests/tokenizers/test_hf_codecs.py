import json

import pytest
import torch

from lalia.audio import Audio
from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError, WeightsError
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.tokenizers import DAC, EnCodec, SpeechTokenizer
from lalia.vocoders import CodecDecoder

pytestmark = pytest.mark.usefixtures("one_thread")


def theirs(kind):
    """A small model of transformers with random weights, large enough for every path to matter."""
    from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel

    torch.manual_seed(0)
    if kind == "encodec":
        shape = {"num_filters": 4, "hidden_size": 16, "codebook_size": 32, "sampling_rate": 800}
        model = EncodecModel(
            EncodecConfig(upsampling_ratios=[4, 2], num_lstm_layers=1, target_bandwidths=[2.0], **shape)
        )
        for layer in model.quantizer.layers:
            layer.codebook.embed.normal_()
        return model.eval()
    ratios = {"dac-odd": [2, 5], "dac-even": [2, 4]}[kind]
    shape = {"encoder_hidden_size": 4, "decoder_hidden_size": 16, "codebook_size": 32, "codebook_dim": 4}
    model = DacModel(DacConfig(downsampling_ratios=ratios, n_codebooks=5, sampling_rate=800, **shape))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "alpha" in name:
                p.uniform_(0.5, 2.0)
            elif p.ndim > 1:
                p.normal_(std=1.5 / (p[0].numel() ** 0.5))
    return model.eval()


@pytest.fixture(scope="module", params=["encodec", "dac-odd", "dac-even"])
def pair(request, tmp_path_factory):
    """Ours and theirs, with the same weights from a folder."""
    model, folder = theirs(request.param), tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    architecture = json.loads((folder / "config.json").read_text())
    kind = EnCodec if request.param == "encodec" else DAC
    return kind.Config(str(folder), num_codebooks=4, architecture=architecture).build(), model


def encoded(model, x):
    """What transformers gives."""
    with torch.no_grad():
        if hasattr(model.config, "target_bandwidths"):
            return model.encode(x).audio_codes[0][:, :4]
        return model.encode(torch.nn.functional.pad(x, (0, -x.shape[2] % model.config.hop_length))).audio_codes[:, :4]


def decoded(model, codes):
    with torch.no_grad():
        if hasattr(model.config, "target_bandwidths"):
            return model.decode(codes[None], [None]).audio_values[:, 0]
        return model.decode(audio_codes=codes).audio_values


def test_published_forms():
    assert EnCodec.Config().spec == StreamSpec(kind=Discrete(1024, 8), frame_rate=75.0)
    assert EnCodec.Config(num_codebooks=32).sample_rate == 24000
    assert DAC.Config().spec == StreamSpec(kind=Discrete(1024, 12), frame_rate=50.0)
    large = DAC.Config("descript/dac_44khz")
    assert large.used == 9
    assert large.spec.frame_rate == pytest.approx(86.13, abs=0.01)
    for config in (EnCodec.Config(), large):
        assert from_dict(to_dict(config)) == config
    with pytest.raises(ConfigError, match="1 to 9"):
        DAC.Config("descript/dac_44khz", num_codebooks=10)
    with pytest.raises(ConfigError, match="1 to 32"):
        EnCodec.Config(num_codebooks=33)


@pytest.mark.parametrize("samples", [40, 333, 1000])
def test_codes_and_sound_are_those_of_transformers(pair, samples):
    ours, model = pair
    x = torch.randn(2, 1, samples)
    codes = ours.encode(Audio(x, 800))
    assert torch.equal(codes.values, encoded(model, x))
    assert len(codes.values.unique()) > 4
    expected = decoded(model, codes.values)
    made = ours.decode(codes).samples[:, 0]
    assert made.shape[1] == codes.num_tokens * ours.hop
    assert float(expected.std()) > 0.01
    torch.testing.assert_close(made[:, : expected.shape[1]], expected, atol=1e-5, rtol=1e-4)


def test_rows_are_what_they_are_alone(pair):
    ours, _ = pair
    audio = Audio(torch.randn(3, 1, 500), 800, torch.tensor([500, 77, 0]))
    codes = ours.encode(audio)
    assert codes.lengths.tolist() == [-(-n // ours.hop) for n in (500, 77, 0)]
    assert torch.equal(codes.row(1).values, ours.encode(audio.row(1)).values)
    made = ours.decode(codes)
    torch.testing.assert_close(made.row(1).samples, ours.decode(codes.row(1)).samples, atol=1e-5, rtol=0)


def test_pieces_give_what_the_whole_gives(pair):
    ours, _ = pair
    audio = Audio(torch.randn(2, 1, 900), 800, torch.tensor([900, 437]))
    whole, state, rows = ours.encode(audio), ours.init_state(2), [[], []]
    for start in range(0, 900, 70):
        piece = Audio(audio.samples[:, :, start : start + 70], 800, (audio.lengths - start).clamp(0, 70))
        codes = ours.encode(piece, state, final=start + 70 >= 900)
        for b, row in enumerate(rows):
            row.append(codes.row(b).values[0])
    for b, row in enumerate(rows):
        assert torch.equal(torch.cat(row, dim=1), whole.row(b).values[0])
    sound, state, made = ours.decode(whole), ours.decoder_state(2), [[], []]
    for t in range(0, whole.num_tokens, 9):
        piece = ours.decode(whole.cut(t, t + 9), state, final=t + 9 >= whole.num_tokens)
        for b, row in enumerate(made):
            row.append(piece.row(b).samples[0, 0])
    for b, row in enumerate(made):
        torch.testing.assert_close(torch.cat(row), sound.row(b).samples[0, 0], atol=1e-4, rtol=0)


def test_the_decoder_is_a_vocoder(pair):
    ours, _ = pair
    vocoder = CodecDecoder.Config("codes", ours.config).build({"codes": ours.spec})
    codes = ours.encode(Audio(torch.randn(1, 1, 400), 800))
    vocoder.take(ours)
    torch.testing.assert_close(vocoder.decode({"codes": codes}).samples, ours.decode(codes).samples)


@pytest.mark.parametrize("kind", [EnCodec, DAC])
def test_tiny_forms_need_nothing_and_are_the_same_each_time(kind):
    config = kind.Config(num_codebooks=3).tiny()
    assert config.tiny() == config
    assert config.spec.frame_rate == kind.Config().spec.frame_rate
    assert config.books == kind.Config().books
    first, second = config.build(), config.build()
    assert isinstance(first, SpeechTokenizer)
    assert first.identity == second.identity
    codes = first.encode(Audio(torch.randn(1, 1, 4000), config.sample_rate))
    assert codes.values.shape[1] == 3
    assert first.decode(codes).samples.shape[2] == codes.num_tokens * first.hop
    vocoder = CodecDecoder.Config("codes", config).build({"codes": config.spec})
    torch.testing.assert_close(vocoder.decode({"codes": codes}).samples, first.decode(codes).samples)
    first.load_weights(first.weights())
    with pytest.raises(ConfigError, match="fetches its own"):
        first.load_weights({"x": torch.zeros(1)})


def test_weights_of_another_shape_are_refused(pair):
    ours, _ = pair
    with pytest.raises(WeightsError, match="as architecture"):
        type(ours).Config(ours.config.name, num_codebooks=4).build()


def test_what_normalises_is_refused():
    with pytest.raises(ConfigError, match="2 channels"):
        EnCodec.Config(architecture={"audio_channels": 2, "normalize": True, "chunk_length_s": 1.0})


def test_no_code_is_too_few(pair):
    ours, _ = pair
    empty = TokenSequence(torch.zeros(1, 4, 0, dtype=torch.long), torch.tensor([0]))
    assert ours.decode(empty).samples.shape[2] == 0
