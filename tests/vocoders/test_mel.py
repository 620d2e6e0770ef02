from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lalia.audio import Audio
from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError, LayoutError
from lalia.streaming import reset_rows, select_rows
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence
from lalia.tokenizers import Mel
from lalia.vocoders import HifiGan, MelVocos

SPECS = {"mel": StreamSpec(kind=Continuous(6), frame_rate=50.0)}
VOCOS = MelVocos.Config("mel", sample_rate=8000, dim=16, ffn_dim=24, num_layers=2)
HIFI = HifiGan.Config(
    "mel",
    sample_rate=800,
    channels=16,
    upsample_rates=(4, 2, 2),
    upsample_kernels=(8, 6, 2),
    resblock_kernels=(3, 5),
    dilations=((1, 3), (1, 2)),
)
SMALL = {"vocos": VOCOS, "hifigan": HIFI}


def spectra(*lengths):
    return TokenSequence(torch.randn(len(lengths), max(lengths), 6), torch.tensor(lengths))


def loud(vocoder):
    """Weights large enough for every path to matter in the samples."""
    with torch.no_grad():
        for name, p in vocoder.named_parameters():
            if name.endswith("original0"):
                p.fill_(1.2)
            elif p.ndim > 1:
                p.copy_(torch.randn_like(p) * 0.3)
        heard = vocoder(torch.randn(1, 50, 6))
    assert 0.02 < float(heard.std()) < 5
    return vocoder.eval()


@pytest.fixture(scope="module", params=SMALL)
def config(request):
    return SMALL[request.param]


@pytest.fixture(scope="module")
def vocoder(config):
    torch.manual_seed(0)
    return loud(config.build(SPECS))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 40), min_size=1, max_size=3), st.lists(st.integers(0, 40), max_size=5))
def test_streaming_equals_offline(vocoder, in_pieces, lengths, cuts):
    mel = spectra(*lengths)
    whole = vocoder.decode({"mel": mel})
    assert whole.lengths.tolist() == [n * vocoder.hop for n in lengths]
    for b, row in enumerate(in_pieces(vocoder, "mel", mel, [c for c in cuts if c <= max(lengths)])):
        torch.testing.assert_close(row, whole.row(b).samples[0, 0], atol=1e-5, rtol=0)


def test_the_field_is_what_the_gradient_says(vocoder):
    x = torch.randn(1, 81, 6, dtype=torch.float64, requires_grad=True)
    hop = vocoder.hop
    vocoder.double()(x)[0, 40 * hop : 41 * hop].pow(2).sum().backward()
    vocoder.float()
    seen = x.grad[0].abs().sum(-1).nonzero()[:, 0] - 40
    assert (-int(seen.min()), int(seen.max())) == (vocoder.field.left, vocoder.field.right)
    assert vocoder.lookahead_seconds == vocoder.field.right / 50


def test_a_row_is_the_same_alone_and_in_a_batch(vocoder):
    mel = spectra(30, 11)
    both = vocoder.decode({"mel": mel})
    for b in range(2):
        torch.testing.assert_close(both.row(b).samples, vocoder.decode({"mel": mel.row(b)}).samples, atol=1e-5, rtol=0)


def test_rows_are_replaced_and_moved(vocoder):
    mel = spectra(20, 20, 20)

    def feed(rows, start, stop, **options):
        cut = mel.values[rows, start:stop]
        return vocoder.decode({"mel": TokenSequence(cut, torch.tensor([stop - start] * len(rows)))}, **options)

    state = vocoder.init_state(2)
    first = feed([0, 1], 0, 12, state=state)
    state = reset_rows(state, vocoder.init_state(2), torch.tensor([True, False]))
    state = select_rows(state, torch.tensor([1, 0]))
    both = TokenSequence(torch.stack([mel.values[1, 12:], mel.values[2, :8]]), torch.tensor([8, 8]))
    second = vocoder.decode({"mel": both}, state, final=True)
    joined = torch.cat([first.row(1).samples, second.row(0).samples], dim=-1)
    torch.testing.assert_close(joined, vocoder.decode({"mel": mel.row(1)}).samples, atol=1e-5, rtol=0)
    newcomer = vocoder.decode({"mel": mel.row(2).cut(0, 8)}).samples
    torch.testing.assert_close(second.row(1).samples, newcomer, atol=1e-5, rtol=0)


def test_mel_of_a_recording_comes_back_in_its_length():
    mel = Mel.Config(20, sample_rate=8000, n_fft=256, hop=64)
    vocoder = MelVocos.Config("mel", sample_rate=8000).tiny().build({"mel": mel.spec}).eval()
    audio = Audio(0.1 * torch.randn(2000), 8000)
    made = vocoder.decode({"mel": mel.build().encode(audio)})
    assert made.sample_rate == 8000
    assert made.lengths.tolist() == [32 * 64]


def test_config_and_weights_survive_a_file(config, tmp_path):
    vocoder = config.build(SPECS).eval()
    save_file(vocoder.state_dict(), tmp_path / "weights.safetensors")
    again = from_dict(to_dict(config)).build(SPECS).eval()
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    mel = spectra(7)
    assert torch.equal(vocoder.decode({"mel": mel}).samples, again.decode({"mel": mel}).samples)


def test_weights_can_be_given_to_a_vocoder_built_without_memory(config):
    real = config.build(SPECS).eval()
    with torch.device("meta"):
        empty = config.build(SPECS).eval()
    empty.load_state_dict(real.state_dict(), assign=True)
    mel = spectra(7)
    assert torch.equal(real.decode({"mel": mel}).samples, empty.decode({"mel": mel}).samples)


def test_full_size_is_that_of_the_paper():
    specs = {"mel": Mel.Config(sample_rate=22050).spec}
    with torch.device("meta"):
        v1 = HifiGan.Config("mel", sample_rate=22050).build(specs)
    plain = sum(p.numel() for name, p in v1.named_parameters() if not name.endswith("original0"))
    assert round(plain / 1e6, 2) == pytest.approx(13.92, abs=0.015)
    assert v1.hop == 256


def test_fused_weights_make_the_same_sound():
    vocoder, mel = HIFI.build(SPECS).eval(), spectra(9)
    before = vocoder.decode({"mel": mel}).samples
    torch.testing.assert_close(vocoder.fuse().decode({"mel": mel}).samples, before)
    assert not any("parametrizations" in name for name in vocoder.state_dict())


def test_wrong_configurations_and_streams_are_refused(config, vocoder):
    with pytest.raises(ConfigError, match="holds codes"):
        config.build({"mel": StreamSpec(kind=Discrete(4), frame_rate=50.0)})
    with pytest.raises(ConfigError, match="'mel', which does not exist"):
        config.build({})
    with pytest.raises(ConfigError, match=r"4 x 2 x 2 = 16.* whose product is 32"):
        replace(HIFI, sample_rate=1600).build(SPECS)
    with pytest.raises(ConfigError, match="MelVocos has lookahead 7"):
        replace(VOCOS, lookahead=7).build(SPECS)
    with pytest.raises(LayoutError, match=r"Give features \[B, T, 6\]"):
        vocoder.decode({"mel": TokenSequence(torch.zeros(1, 3, 5), torch.tensor([3]))})
    with pytest.raises(LayoutError, match="from 0 to 0"):
        vocoder.decode({"mel": spectra(3)}, speaker=1)
