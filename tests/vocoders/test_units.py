from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError, LayoutError
from lalia.nn.fir import Field
from lalia.streaming import reset_rows, select_rows
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence
from lalia.vocoders import UnitHifiGan, UnitVocos
from lalia.vocoders.hifigan import HifiGanGenerator

CLOCKED = {"units": StreamSpec(kind=Discrete(20), frame_rate=50.0)}
UNCLOCKED = {"units": StreamSpec(kind=Discrete(20), frame_rate=50.0, deduplicated=True)}
CODEC = {"units": StreamSpec(kind=Discrete(20, num_codebooks=3), frame_rate=50.0)}

VOCOS = UnitVocos.Config("units", sample_rate=8000, upsample=2, dim=16, ffn_dim=24, num_layers=2)
HIFI = UnitHifiGan.Config(
    "units",
    sample_rate=800,
    dim=8,
    channels=16,
    upsample_rates=(4, 2, 2),
    upsample_kernels=(8, 6, 2),
    resblock_kernels=(3, 5),
    dilations=((1, 3), (1, 2)),
)
SMALL = {"vocos": VOCOS, "hifigan": HIFI}


def tokens(*lengths, codebooks=1, durations=None):
    codes = torch.randint(0, 20, (len(lengths), codebooks, max(lengths)))
    return TokenSequence(codes, torch.tensor(lengths), durations)


def loud(vocoder):
    """Weights large enough for every path to matter in the samples."""
    with torch.no_grad():
        for name, p in vocoder.named_parameters():
            if name.endswith("original0"):
                p.fill_(1.2)
            elif p.ndim > 1:
                p.copy_(torch.randn_like(p) * 0.3)
        heard = vocoder(torch.randint(0, 20, (1, vocoder.num_codebooks, 50)))
    assert 0.02 < float(heard.std()) < 5
    return vocoder.eval()


@pytest.fixture(scope="module", params=SMALL)
def config(request):
    return SMALL[request.param]


@pytest.fixture(scope="module")
def clocked(config):
    torch.manual_seed(0)
    return loud(config.build(CLOCKED))


@pytest.fixture(scope="module")
def predicting(config):
    torch.manual_seed(0)
    return loud(replace(config, predict_durations=True, num_speakers=2).build(UNCLOCKED))


# -- streaming ------------------------------------------------------------------------------------


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.lists(st.integers(0, 40), max_size=5))
def test_streaming_equals_offline(clocked, in_pieces, lengths, cuts):
    units = tokens(*lengths)
    whole = clocked.decode({"units": units})
    assert whole.lengths.tolist() == [n * clocked.hop for n in lengths]
    for b, row in enumerate(in_pieces(clocked, "units", units, [c for c in cuts if c <= max(lengths)])):
        torch.testing.assert_close(row, whole.row(b).samples[0, 0], atol=1e-5, rtol=0)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 12), min_size=1, max_size=3), st.lists(st.integers(0, 12), max_size=4))
def test_streaming_equals_offline_with_predicted_durations(predicting, in_pieces, lengths, cuts):
    units = tokens(*lengths)
    whole = predicting.decode({"units": units}, speaker=1)
    for b, row in enumerate(in_pieces(predicting, "units", units, [c for c in cuts if c <= max(lengths)], speaker=1)):
        torch.testing.assert_close(row, whole.row(b).samples[0, 0], atol=1e-5, rtol=0)


def test_a_row_is_the_same_alone_and_in_a_batch(clocked):
    units = tokens(30, 11)
    both = clocked.decode({"units": units})
    for b in range(2):
        alone = clocked.decode({"units": units.row(b)})
        torch.testing.assert_close(both.row(b).samples, alone.samples, atol=1e-5, rtol=0)


def test_rows_are_replaced_and_moved(clocked):
    units = tokens(20, 20, 20)

    def feed(rows, start, stop, **options):
        cut = units.values[rows, :, start:stop]
        return clocked.decode({"units": TokenSequence(cut, torch.tensor([stop - start] * len(rows)))}, **options)

    state = clocked.init_state(2)
    first = feed([0, 1], 0, 12, state=state)
    state = reset_rows(state, clocked.init_state(2), torch.tensor([True, False]))
    state = select_rows(state, torch.tensor([1, 0]))
    both = TokenSequence(torch.stack([units.values[1, :, 12:], units.values[2, :, :8]]), torch.tensor([8, 8]))
    second = clocked.decode({"units": both}, state, final=True)
    joined = torch.cat([first.row(1).samples, second.row(0).samples], dim=-1)
    torch.testing.assert_close(joined, clocked.decode({"units": units.row(1)}).samples, atol=1e-5, rtol=0)
    newcomer = clocked.decode({"units": units.row(2).cut(0, 8)}).samples
    torch.testing.assert_close(second.row(1).samples, newcomer, atol=1e-5, rtol=0)


def test_the_field_is_what_the_gradient_says(clocked):
    wave = clocked.double()
    dim = clocked.embeddings[0].embedding_dim
    x = torch.randn(1, 81, dim, dtype=torch.float64, requires_grad=True)
    hop, network = clocked.hop, wave.waveform
    network(x)[0, 40 * hop : 41 * hop].pow(2).sum().backward()
    seen = x.grad[0].abs().sum(-1).nonzero()[:, 0] - 40
    clocked.float()
    assert (-int(seen.min()), int(seen.max())) == (clocked.field.left, clocked.field.right)
    assert clocked.lookahead_seconds == clocked.field.right / 50


def test_less_lookahead_is_less_latency_and_still_exact(in_pieces):
    vocoder = loud(replace(VOCOS, lookahead=0).build(CLOCKED))
    assert vocoder.field == Field(left=10, right=1, hop=160)
    units = tokens(30)
    (row,) = in_pieces(vocoder, "units", units, [3, 4, 17])
    torch.testing.assert_close(row, vocoder.decode({"units": units}).samples[0, 0], atol=1e-5, rtol=0)


# -- durations, voices, codebooks -----------------------------------------------------------------


def test_given_durations_are_obeyed(predicting):
    short = tokens(3, 2, durations=torch.tensor([[2, 1, 4], [1, 5, 0]]))
    long = TokenSequence(short.expand().values, torch.tensor([7, 6]), torch.ones(2, 7, dtype=torch.long))
    a, b = predicting.decode({"units": short}), predicting.decode({"units": long})
    assert a.lengths.tolist() == [7 * predicting.hop, 6 * predicting.hop]
    torch.testing.assert_close(a.samples, b.samples)


def test_predicted_durations_are_those_of_the_predictor(predicting):
    units = tokens(6)
    frames = predicting.durations.frames(predicting.embed(units.values))
    assert (frames >= 1).all()
    assert predicting.decode({"units": units}).lengths[0] == frames.sum() * predicting.hop


def test_durations_can_be_asked_for(predicting, clocked):
    units = tokens(6, 3, 0)
    frames = predicting.predict_durations(units)
    assert frames.shape == (3, 6)
    for b, n in enumerate((6, 3)):
        alone = predicting.durations.frames(predicting.embed(units.row(b).values))[0]
        assert frames[b].tolist() == [*alone.tolist(), *[0] * (6 - n)]
    with_them = TokenSequence(units.values, units.lengths, frames)
    torch.testing.assert_close(
        predicting.decode({"units": with_them}).samples, predicting.decode({"units": units}).samples
    )
    assert predicting.predict_durations(units.row(2)).shape == (1, 0)
    with pytest.raises(ConfigError, match="cannot tell how long units last"):
        clocked.predict_durations(units)


def test_voices_differ_and_the_first_is_the_default(predicting):
    units = TokenSequence(tokens(5).values.repeat(2, 1, 1), torch.tensor([5, 5]))
    none, both = predicting.decode({"units": units}), predicting.decode({"units": units}, speaker=torch.tensor([0, 1]))
    torch.testing.assert_close(none.row(0).samples, both.row(0).samples)
    assert (both.row(0).samples - both.row(1).samples).abs().max() > 1e-3


def test_codebooks_are_summed(config):
    vocoder = loud(config.build(CODEC))
    codes = tokens(4, codebooks=3).values
    x = sum(vocoder.embeddings[k](codes[:, k]) for k in range(3))
    torch.testing.assert_close(vocoder(codes), vocoder.waveform(x))


def test_duration_loss_counts_only_whole_runs(predicting):
    codes = torch.tensor([[[3, 3, 5, 5, 5, 7, 9, 9]], [[1, 1, 1, 1, 1, 1, 1, 1]]])
    total, count = predicting.duration_loss(TokenSequence(codes, torch.tensor([8, 8])))
    said = predicting.durations(predicting.embed(torch.tensor([[[3, 5, 7, 9]]])))[0]
    wanted = (said[1] - torch.tensor(4.0).log()) ** 2 + (said[2] - torch.tensor(2.0).log()) ** 2
    assert count == 2
    torch.testing.assert_close(total, wanted)


# -- building, saving, precision ------------------------------------------------------------------


def test_config_and_weights_survive_a_file(config, tmp_path):
    config = replace(config, predict_durations=True, num_speakers=2)
    vocoder = config.build(UNCLOCKED).eval()
    save_file(vocoder.state_dict(), tmp_path / "weights.safetensors")
    again = from_dict(to_dict(config)).build(UNCLOCKED).eval()
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    units = tokens(7)
    assert torch.equal(vocoder.decode({"units": units}).samples, again.decode({"units": units}).samples)


def test_weights_can_be_given_to_a_vocoder_built_without_memory(config):
    real = config.build(CLOCKED).eval()
    with torch.device("meta"):
        empty = config.build(CLOCKED).eval()
    empty.load_state_dict(real.state_dict(), assign=True)
    units = tokens(7)
    assert torch.equal(real.decode({"units": units}).samples, empty.decode({"units": units}).samples)


def test_full_size_generator_is_that_of_the_paper():
    with torch.device("meta"):
        v1 = HifiGanGenerator(
            80,
            channels=512,
            upsample_rates=(8, 8, 2, 2),
            upsample_kernels=(16, 16, 4, 4),
            resblock_kernels=(3, 7, 11),
            dilations=((1, 3, 5),) * 3,
        )
    # 13.92 M in Table 1, counted without the lengths that weight norm adds.
    plain = sum(p.numel() for name, p in v1.named_parameters() if not name.endswith("original0"))
    assert round(plain / 1e6, 2) == pytest.approx(13.92, abs=0.015)


def test_fused_weights_make_the_same_sound():
    vocoder = HIFI.build(CLOCKED).eval()
    units = tokens(9)
    before, names = vocoder.decode({"units": units}).samples, set(vocoder.state_dict())
    after = vocoder.fuse().decode({"units": units}).samples
    torch.testing.assert_close(after, before)
    assert not any("parametrizations" in name for name in vocoder.state_dict())
    assert len(vocoder.state_dict()) < len(names)


def test_every_parameter_learns_also_in_bfloat16(config):
    vocoder = replace(config, num_speakers=2, predict_durations=True).build(UNCLOCKED)
    units = tokens(12, 12)
    with torch.autocast("cpu", torch.bfloat16):
        samples = vocoder(units.values, torch.tensor([0, 1]))
        loss = (samples**2).sum() + vocoder.duration_loss(units)[0]
    assert samples.dtype == torch.float32
    assert samples.shape == (2, 12 * vocoder.hop)
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in vocoder.parameters())


def test_wrong_configurations_are_refused(config):
    with pytest.raises(ConfigError, match="'units', which does not exist"):
        config.build({"other": CLOCKED["units"]})
    with pytest.raises(ConfigError, match="Set predict_durations"):
        config.build(UNCLOCKED)
    with pytest.raises(ConfigError, match="holds features"):
        config.build({"units": StreamSpec(kind=Continuous(4), frame_rate=50.0)})
    with pytest.raises(ConfigError, match="without a frame rate"):
        config.build({"units": StreamSpec(kind=Discrete(20), frame_rate=None)})
    with pytest.raises(ConfigError, match="no whole number of samples"):
        config.build({"units": StreamSpec(kind=Discrete(20), frame_rate=33.0)})
    with pytest.raises(ConfigError, match="3 codebooks"):
        replace(config, predict_durations=True).build(CODEC)


def test_hifigan_says_which_product_it_needs():
    with pytest.raises(ConfigError, match=r"4 x 2 x 2 = 16.* whose product is 32"):
        replace(HIFI, sample_rate=1600).build(CLOCKED)
    with pytest.raises(ConfigError, match="upsample by 4 with a kernel of 7"):
        replace(HIFI, upsample_kernels=(7, 6, 2)).build(CLOCKED)


def test_wrong_streams_are_refused(predicting):
    with pytest.raises(LayoutError, match="'units', which was not given"):
        predicting.decode({"text": tokens(3)})
    with pytest.raises(LayoutError, match="the code 20, outside its codebook of 20"):
        predicting.decode({"units": TokenSequence(torch.full((1, 1, 2), 20), torch.tensor([2]))})
    with pytest.raises(LayoutError, match="Give codes"):
        predicting.decode({"units": tokens(3, codebooks=2)})
    with pytest.raises(LayoutError, match="from 0 to 1"):
        predicting.decode({"units": tokens(3)}, speaker=2)
    with pytest.raises(LayoutError, match="2 speakers for 3 rows"):
        predicting.decode({"units": tokens(3, 3, 3)}, speaker=torch.tensor([0, 1]))
