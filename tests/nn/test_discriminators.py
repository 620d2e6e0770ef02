import pytest
import torch

from lalia.errors import ConfigError
from lalia.nn.discriminators import MultiPeriod, MultiResolution, MultiScale, MultiSpectrum

SMALL = {
    "period": MultiPeriod.Config(periods=(2, 3), channels=(4, 8, 8)),
    "scale": MultiScale.Config(num_scales=2, channels=(4, 8), kernels=(15, 9), strides=(1, 4), groups=(1, 2)),
    "resolution": MultiResolution.Config(sizes=(64, 128), channels=4, num_strided=2),
    "spectrum": MultiSpectrum.Config(sizes=(64, 128), channels=4, dilations=(1, 2)),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_network_gives_features_scores_and_gradients(name):
    bank = SMALL[name].build()
    x = torch.randn(2, 1001, requires_grad=True)
    made = bank(x)
    assert len(made) == 2
    for layers in made:
        assert layers[-1].shape[:2] == (2, 1)
        assert len(layers) >= 3
    sum((layers[-1] ** 2).mean() for layers in made).backward()
    assert (x.grad.abs().sum(-1) > 0).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in bank.parameters())


def test_a_period_compares_only_samples_that_are_whole_periods_apart():
    network = MultiPeriod.Config(periods=(5,), channels=(4, 4)).build()
    x = torch.randn(1, 200, requires_grad=True)
    network(x)[0][-1][..., 3].sum().backward()
    assert set((x.grad[0].nonzero()[:, 0] % 5).tolist()) == {3}


def test_full_size_is_that_of_the_paper():
    def layers(shapes, bias=True):
        # Weight norm keeps a direction of the weight's size and a length per output channel.
        return sum(out * inp * k + out + (out if bias else 0) for inp, out, k in shapes)

    with torch.device("meta"):
        period, scale = MultiPeriod.Config().build(), MultiScale.Config().build()
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    one = layers([(1, 32, 5), (32, 128, 5), (128, 512, 5), (512, 1024, 5), (1024, 1024, 5), (1024, 1, 3)])
    assert count(period) == 5 * one
    shapes = [(1, 128, 15), (32, 128, 41), (8, 256, 41), (16, 512, 41), (32, 1024, 41), (64, 1024, 41), (1024, 1024, 5)]
    weighted = layers([*shapes, (1024, 1, 3)])
    spectral = weighted - sum(out for _, out, _ in shapes) - 1
    assert count(scale) == 2 * weighted + spectral


def test_scales_see_averages():
    bank = SMALL["scale"].build()
    x = torch.arange(16.0)[None]
    assert torch.equal(bank.view(x, 0), x[:, None])
    # Windows of four, two apart, with two zeros before the first sample.
    assert bank.view(x, 1)[0, 0, :4].tolist() == [0.25, 1.5, 3.5, 5.5]


def test_lists_of_different_length_are_refused():
    with pytest.raises(ConfigError, match="lists of"):
        MultiScale.Config(channels=(4, 8)).build()
