from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.config import from_dict, to_dict
from lalia.encoders import SpeechEncoder
from lalia.errors import ConfigError, DataError
from lalia.nn.discriminators import MultiPeriod, MultiSpectrum
from lalia.nn.fsq import FSQ
from lalia.nn.quantize import ResidualVQ
from lalia.nn.quantize_parts import SplitResidualVQ
from lalia.nn.seanet import SEANet
from lalia.tokenizers import Codec
from lalia.training import Trainer
from lalia.training.objectives.codec_gan import CodecGAN
from lalia.training.objectives.distillation import Distillation

CODEC = Codec.Config(1600, SEANet((2, 4), 4, 16, normalize=True), ResidualVQ.Config(16, 3))
GAN = CodecGAN.Config(
    discriminators=(
        MultiPeriod.Config(periods=(2, 3), channels=(4, 8)),
        MultiSpectrum.Config(sizes=(64,), channels=4, dilations=(1,)),
    ),
    mel_sizes=(64, 128),
)
TEACHER = SpeechEncoder.Config(
    "teacher",
    pretrained=False,
    architecture={
        "model_type": "hubert",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "conv_dim": [8] * 7,
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
    },
)


pytestmark = pytest.mark.usefixtures("one_thread")


def batch(rows=4, samples=400, rate=1600):
    """Tones of different pitch."""
    pitch = 50 + 300 * torch.rand(rows, 1)
    return {"audio": Audio(0.3 * torch.sin(2 * torch.pi * pitch * torch.arange(samples) / rate)[:, None], rate)}


class Repeating:
    """The same few batches again and again."""

    def __init__(self, count=4):
        self.items, self.position = [[batch()] for _ in range(count)], 0

    def __iter__(self):
        yield from self.items

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_terms_are_those_that_are_counted():
    gan, given = GAN.build(CODEC.build().train()), batch()
    assert from_dict(to_dict(GAN)) == GAN
    terms = {**gan.losses("discriminator", given), **gan.losses("generator", given)}
    assert set(terms) == set(gan.counts(given)) == set(gan.weights) - {"stft", "distillation"}
    assert all(bool(t.isfinite()) for t in terms.values())
    sum(gan.losses("generator", given).values()).backward()
    assert all(p.grad is not None for p in gan.codec.encoder.parameters())


def test_losses_are_those_of_each_segment_added():
    gan, whole = GAN.build(CODEC.build()), batch(rows=3)
    parts = [gan.losses("generator", {"audio": whole["audio"].row(b)}) for b in range(3)]
    for name, value in gan.losses("generator", whole).items():
        torch.testing.assert_close(value, sum(p[name] for p in parts), atol=1e-4, rtol=1e-4)


def test_codebooks_follow_after_the_step_and_not_before():
    gan, first, second = GAN.build(CODEC.build().train()), batch(), batch()
    book = gan.codec.quantizer.codebooks[0]
    before = book.vectors.clone()
    for given in (first, second):
        gan.losses("generator", given)
    assert torch.equal(book.vectors, before)
    gan.finish_step(updated=False)
    assert torch.equal(book.vectors, before)
    gan.losses("generator", first)
    gan.finish_step(updated=True)
    assert not torch.equal(book.vectors, before)
    moved = book.vectors.clone()
    gan.finish_step(updated=True)  # a rank without a batch
    torch.testing.assert_close(book.vectors, moved)
    gan.codec.eval()
    gan.losses("generator", first)
    gan.finish_step(updated=True)
    torch.testing.assert_close(book.vectors, moved)


@pytest.mark.parametrize(
    "quantizer", [CODEC.quantizer, FSQ.Config((4, 4, 4)), SplitResidualVQ.Config(16, 3, project=8)]
)
def test_training_lowers_the_losses(quantizer, tmp_path):
    codec = replace(CODEC, quantizer=quantizer).build()
    gan, held = replace(GAN, warmup_steps=30).build(codec), [batch()]
    config = Trainer.Config(
        60, learning_rate=3e-3, betas=(0.8, 0.99), schedule="constant", tensorboard=False, best_metric="mel"
    )
    trainer = config.build(gan, Repeating(), tmp_path, validation=held)
    before = trainer.evaluate()
    progress = trainer.fit()
    assert progress.skipped == 0
    assert progress.validation["mel"] < 0.9 * before["mel"]
    assert progress.validation["wave"] < before["wave"]


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    def run(folder, steps, *, resume=False):
        torch.manual_seed(0)
        codec = CODEC.build()
        config = Trainer.Config(steps, learning_rate=1e-3, schedule="constant", tensorboard=False)
        config.build(GAN.build(codec), Repeating(1), tmp_path / folder).fit(resume=resume)
        return codec.state_dict()

    whole = run("whole", 6)
    run("parts", 3)
    parts = run("parts", 6, resume=True)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_segments_that_are_not_for_the_codec():
    gan = GAN.build(CODEC.build())
    with pytest.raises(DataError, match="whole frames"):
        gan.losses("generator", batch(samples=401))
    with pytest.raises(DataError, match="3200 Hz"):
        gan.losses("generator", batch(rate=3200))


# -- the teacher ----------------------------------------------------------------------------------


@pytest.mark.parametrize("along", ["frames", "dims"])
@pytest.mark.parametrize("rate", [12.5, 25.0, 50.0, 75.0])
def test_the_distance_is_least_where_code_and_teacher_agree(along, rate):
    config = Distillation.Config(TEACHER, along=along)
    distillation = config.build(dim=16, frame_rate=rate, device=torch.device("cpu"))
    audio = Audio(0.1 * torch.randn(2, 1, 16000), 16000)
    frames = round(rate)
    target = distillation.target(audio, frames)
    assert target.shape == (2, frames, 16)
    least = {"frames": 0.0, "dims": 2 * float(-F.logsigmoid(torch.tensor(1.0)))}[along]
    with torch.no_grad():
        distillation.project.weight.copy_(torch.eye(16))
        distillation.project.bias.zero_()
        assert float(distillation.loss(target, audio)) == pytest.approx(least, abs=1e-4)
        assert float(distillation.loss(torch.randn(2, frames, 16), audio)) > least + 0.1


def test_pooling_averages_what_lies_around_a_frame():
    distillation = Distillation.Config(TEACHER).build(dim=16, frame_rate=12.5, device=torch.device("cpu"))
    audio = Audio(0.1 * torch.randn(1, 1, 16000), 16000)
    heard = distillation.teacher.encode(audio).values[0]
    # Frame 3 begins at 12; its 4 frames, with 2 before and 2 behind.
    torch.testing.assert_close(distillation.target(audio, 12)[0, 3], heard[10:18].mean(0))


def test_a_teacher_is_neither_trained_nor_kept():
    config = replace(GAN, distillation=Distillation.Config(TEACHER))
    codec = replace(CODEC, sample_rate=16000, network=SEANet((4, 5, 16), 2, 16)).build().train()
    gan, given = config.build(codec), {"audio": Audio(0.1 * torch.randn(2, 1, 3200), 16000)}
    terms = gan.losses("generator", given)
    assert set(terms) <= set(gan.counts(given))
    terms["distillation"].backward()
    assert any(bool(p.grad.any()) for p in codec.encoder.parameters() if p.grad is not None)
    kept = {id(p) for m in gan.modules("generator") for p in m.parameters()}
    assert not kept & {id(p) for p in gan.distillation.teacher.parameters()}
    assert {id(p) for p in gan.distillation.project.parameters()} <= kept
    assert not any("teacher" in name for name in codec.weights())


def test_rates_that_do_not_fit():
    with pytest.raises(ConfigError, match="a multiple"):
        Distillation.Config(TEACHER).build(dim=16, frame_rate=30.0, device=torch.device("cpu"))
