import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError, DataError, LayoutError
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence
from lalia.vocoders import WaveGlow

SPECS = {"mel": StreamSpec(kind=Continuous(5), frame_rate=100.0)}
SMALL = WaveGlow.Config(
    sample_rate=1600, window=64, num_flows=5, group=8, early_every=2, early_size=2, num_layers=3, dim=6
)


@pytest.fixture(scope="module")
def waveglow():
    torch.manual_seed(0)
    model = SMALL.build(SPECS).eval()
    for coupling in model.couplings:
        torch.nn.init.normal_(coupling.end.weight, std=0.2)
    return model


def mel(*lengths):
    return TokenSequence(torch.randn(len(lengths), max(lengths), 5), torch.tensor(lengths))


def test_full_size_is_the_published_one():
    with torch.device("meta"):
        model = WaveGlow.Config().build({"mel": StreamSpec(kind=Continuous(80), frame_rate=22050 / 256)})
    # The public LJSpeech model with 256 channels.
    assert sum(p.numel() for p in model.parameters()) == 87_879_272


@torch.no_grad()
def test_inverse_undoes_forward(waveglow):
    x, frames = torch.randn(3, 7 * 16), torch.randn(3, 7, 5)
    noise, _ = waveglow(x, frames)
    assert (noise - x).abs().max() > 0.1
    torch.testing.assert_close(waveglow.inverse(noise, frames), x, atol=1e-4, rtol=1e-4)


def test_volume_is_the_determinant_of_the_jacobian(waveglow):
    x, frames = torch.randn(1, 32), torch.randn(1, 2, 5)
    jacobian = torch.autograd.functional.jacobian(lambda x: waveglow(x, frames)[0], x)[0, :, 0]
    torch.testing.assert_close(waveglow(x, frames)[1][0], torch.linalg.slogdet(jacobian)[1], atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_loss_is_the_likelihood_under_a_gaussian(waveglow):
    streams, audio = {"mel": mel(4, 4)}, Audio(torch.randn(2, 1, 64), 1600)
    noise, volume = waveglow(audio.samples[:, 0], streams["mel"].values)
    sigma = SMALL.train_sigma
    density = torch.distributions.Normal(0.0, sigma).log_prob(noise).sum() + volume.sum()
    constant = noise.numel() * torch.log(torch.tensor(sigma * (2 * torch.pi) ** 0.5))
    torch.testing.assert_close(waveglow.losses(streams, audio)["nll"], -density - constant)
    assert waveglow.counts(streams, audio) == {"nll": 128}


def test_loss_falls_also_in_bfloat16():
    model = SMALL.build(SPECS)
    t = torch.arange(320) / 1600
    audio = Audio(torch.sin(2 * torch.pi * torch.tensor([100.0, 150.0])[:, None] * t)[:, None] * 0.3, 1600)
    streams = {"mel": mel(20, 20)}
    optimizer, history = torch.optim.Adam(model.parameters(), 3e-3), []
    for _ in range(20):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.losses(streams, audio)["nll"] / model.counts(streams, audio)["nll"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < history[0] - 0.5
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 30), min_size=1, max_size=3), st.lists(st.integers(0, 30), max_size=4))
def test_streaming_equals_offline(waveglow, in_pieces, lengths, cuts):
    frames = mel(*lengths)
    whole = waveglow.decode({"mel": frames})
    assert whole.lengths.tolist() == [16 * n for n in lengths]
    for b, row in enumerate(in_pieces(waveglow, "mel", frames, [c for c in cuts if c <= max(lengths)])):
        torch.testing.assert_close(row, whole.row(b).samples[0, 0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_field_covers_what_is_seen(waveglow):
    frames = torch.randn(1, 61, 5)
    noise = torch.randn(1, 61 * 16)
    with torch.enable_grad():
        frames.requires_grad_()
        waveglow.inverse(noise, frames)[0, 30 * 16 : 31 * 16].sum().backward()
    seen = frames.grad[0].abs().sum(-1).nonzero()[:, 0] - 30
    assert -int(seen.min()) <= waveglow.field.left
    assert int(seen.max()) <= waveglow.field.right


def test_noise_is_new_in_every_frame_and_the_same_again(waveglow):
    noise = waveglow._noise(0, 500)
    assert torch.equal(noise[100:200], waveglow._noise(100, 100))
    assert len({tuple(row) for row in noise.tolist()}) == 500
    assert abs(float(noise.std()) - SMALL.sigma) < 0.02
    assert abs(float(torch.corrcoef(torch.stack([noise[1:].flatten(), noise[:-1].flatten()]))[0, 1])) < 0.05


def test_config_survives_and_wrong_input_is_refused(waveglow):
    assert from_dict(to_dict(SMALL)) == SMALL
    with pytest.raises(ConfigError, match="holds codes"):
        SMALL.build({"mel": StreamSpec(kind=Discrete(5), frame_rate=100.0)})
    with pytest.raises(ConfigError, match="groups of 8"):
        WaveGlow.Config(sample_rate=1200, window=64).build(SPECS)
    with pytest.raises(DataError, match="do not match 4 mel frames"):
        waveglow.losses({"mel": mel(4)}, Audio(torch.zeros(1, 1, 60), 1600))
    with pytest.raises(LayoutError, match=r"Give features \[B, T, 5\]"):
        waveglow.decode({"mel": TokenSequence(torch.zeros(1, 3, 4), torch.tensor([3]))})
