import pytest
import torch

from lalia.audio import Audio
from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError, DataError
from lalia.nn.discriminators import MultiPeriod, MultiResolution, MultiScale
from lalia.nn.spectral import LogMel
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.training.objectives.gan import VocoderGAN, discriminator_loss, feature_loss, generator_loss
from lalia.vocoders import UnitHifiGan, UnitVocos

SPECS = {"units": StreamSpec(kind=Discrete(6), frame_rate=50.0)}
VOCOS = UnitVocos.Config("units", sample_rate=8000, dim=24, ffn_dim=48, num_layers=2, predict_durations=True)
GAN = VocoderGAN.Config(
    mel=LogMel.Config(8000, n_fft=256, hop=64, bins=20),
    discriminators=(
        MultiPeriod.Config(periods=(2, 3), channels=(4, 8)),
        MultiScale.Config(num_scales=1, channels=(4, 8), kernels=(15, 9), strides=(1, 4), groups=(1, 2)),
        MultiResolution.Config(sizes=(128,), channels=4, num_strided=1),
    ),
    stft_weight=1.0,
    stft_sizes=(128, 256),
)


def batch(rows=4, frames=12, hop=160):
    """Tones whose pitch is the unit."""
    units = torch.randint(0, 6, (rows, frames))
    cycles = torch.cumsum((200 + 150 * units).repeat_interleave(hop, 1) / 8000, 1)
    return {
        "streams": {"units": TokenSequence(units[:, None], torch.full((rows,), frames))},
        "audio": Audio(0.3 * torch.sin(2 * torch.pi * cycles)[:, None], 8000),
        "speaker": None,
    }


def made(*values):
    """Outputs of one discriminator with one hidden layer, for a batch of two rows."""
    return [[torch.tensor(values[0]), torch.tensor(values[1])]]


def test_losses_equal_their_formulas():
    real = made([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], [[1.0, 0.5], [0.0, 2.0]])
    fake = made([[1.0, 0.0, 6.0], [3.0, 0.0, 0.0]], [[0.5, 0.5], [1.0, 0.0]])
    # Rows: (0 + 0.25) / 2 + (0.25 + 0.25) / 2, and (1 + 1) / 2 + (1 + 0) / 2.
    assert float(discriminator_loss(real, fake)) == pytest.approx(0.375 + 1.5)
    assert float(generator_loss(fake)) == pytest.approx((0.25 + 0.25) / 2 + (0 + 1) / 2)
    assert float(feature_loss(real, fake)) == pytest.approx((0 + 2 + 3) / 3 + 3 / 3)
    assert float(feature_loss(real * 2, fake * 2)) == pytest.approx(2 * (5 / 3 + 1))


def test_losses_are_those_of_each_segment_added():
    gan, whole = GAN.build(VOCOS.build(SPECS).eval()), batch(rows=3)
    gan.discriminators.eval()
    parts = [
        {
            "streams": {"units": whole["streams"]["units"].row(b)},
            "audio": whole["audio"].row(b),
            "speaker": None,
        }
        for b in range(3)
    ]
    for player in gan.players:
        together = gan.losses(player, whole)
        apart = [gan.losses(player, part) for part in parts]
        for term, value in together.items():
            torch.testing.assert_close(value, sum(p[term] for p in apart), rtol=1e-4, atol=1e-4)
    counts = [gan.counts(part) for part in parts]
    assert gan.counts(whole) == {term: sum(c[term] for c in counts) for term in counts[0]}


def test_mel_is_a_mean_absolute_difference():
    gan, given = GAN.build(VOCOS.build(SPECS).eval()), batch(rows=2)
    fake = gan.vocoder(given["streams"]["units"].values)
    wanted = (gan.mel(fake) - gan.mel(given["audio"].samples[:, 0])).abs().mean()
    torch.testing.assert_close(gan.losses("generator", given)["mel"] / gan.counts(given)["mel"], wanted)


def test_each_player_gets_only_its_own_gradient():
    gan, given = GAN.build(VOCOS.build(SPECS)), batch()
    weighted = lambda losses: sum(gan.weights[t] * x for t, x in losses.items())  # noqa: E731
    weighted(gan.losses("discriminator", given)).backward()
    assert all(p.grad is None for p in gan.vocoder.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in gan.discriminators.parameters())
    gan.discriminators.requires_grad_(False).zero_grad()
    weighted(gan.losses("generator", given)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in gan.vocoder.parameters())
    assert all(p.grad is None for p in gan.discriminators.parameters())


def test_what_the_discriminator_saw_is_not_computed_again(monkeypatch):
    gan, given, other = GAN.build(VOCOS.build(SPECS)), batch(), batch()
    calls = []
    plain = gan.synthesize
    monkeypatch.setattr(gan, "synthesize", lambda b: calls.append(b) or plain(b))
    gan.losses("discriminator", given)
    gan.losses("generator", given)
    assert calls == [given]
    gan.losses("generator", given)
    gan.losses("discriminator", given)
    gan.losses("generator", other)
    assert len(calls) == 4
    with torch.no_grad():
        gan.losses("discriminator", given)
    assert gan.losses("generator", given)["mel"].requires_grad


def test_discriminators_join_after_the_warm_up():
    gan, given = VocoderGAN.Config(**{**vars(GAN), "warmup_steps": 5}).build(VOCOS.build(SPECS)), batch()
    gan.step = 4
    assert gan.losses("discriminator", given) == {}
    assert set(gan.losses("generator", given)) == set(gan.counts(given)) == {"mel", "stft", "duration"}
    gan.step = 5
    terms = {*gan.losses("discriminator", given), *gan.losses("generator", given)}
    assert terms == set(gan.counts(given)) == set(gan.weights)


def test_both_players_look_at_one_place_that_changes():
    gan = VocoderGAN.Config(**{**vars(GAN), "judged_frames": 3}).build(VOCOS.build(SPECS))
    samples = torch.arange(12 * 160).expand(4, -1)
    places = set()
    for gan.step in range(30):
        first, second = gan._crop(samples), gan._crop(samples)
        assert torch.equal(first, second)
        assert first.shape == (4, 3 * 160)
        places.add(int(first[0, 0]))
    assert len(places) > 5
    assert all(place % 160 == 0 for place in places)


@pytest.mark.parametrize(
    "vocoder",
    [
        VOCOS,
        UnitHifiGan.Config(
            "units",
            sample_rate=8000,
            dim=16,
            channels=32,
            upsample_rates=(8, 5, 4),
            upsample_kernels=(16, 11, 8),
            resblock_kernels=(3,),
            dilations=((1, 3),),
        ),
    ],
)
def test_training_lowers_the_mel_loss(vocoder):
    gan = VocoderGAN.Config(**{**vars(GAN), "warmup_steps": 25, "judged_frames": 6}).build(vocoder.build(SPECS))
    optimizers = {
        player: torch.optim.AdamW([p for m in gan.modules(player) for p in m.parameters()], 2e-3, betas=(0.8, 0.99))
        for player in gan.players
    }
    history = []
    for gan.step in range(35):
        given = batch(rows=3)
        counts = gan.counts(given)
        for player in gan.players:
            losses = gan.losses(player, given)
            if not losses:
                continue
            loss = sum(gan.weights[term] * value / counts[term] for term, value in losses.items())
            optimizers[player].zero_grad()
            loss.backward()
            optimizers[player].step()
        history.append(float(losses["mel"].detach()) / counts["mel"])
    assert sum(history[-5:]) < 0.8 * sum(history[:5])


def test_config_survives_and_wrong_input_is_refused():
    assert from_dict(to_dict(GAN)) == GAN
    with pytest.raises(ConfigError, match="at 16000 Hz, but the vocoder makes 8000"):
        VocoderGAN.Config(mel=LogMel.Config(16000)).build(VOCOS.build(SPECS))
    gan, given = GAN.build(VOCOS.build(SPECS)), batch()
    given["audio"] = given["audio"].cut(0, 0.1)
    with pytest.raises(DataError, match="do not match units of 1920 samples"):
        gan.losses("generator", given)
