"""TWIST (Hassid et al. 2023): a textless language model that begins as a text model."""

from dataclasses import replace

from lalia.lm import HF
from lalia.recipe import Recipe, Stream
from lalia.recipes.gslm import gslm
from lalia.tokenizers import SSLUnits
from lalia.training import PredictTokens, Trainer, TrainStage
from lalia.vocoders import UnitHifiGan

# HuBERT with one more convolution, which makes 25 frames of 50.
MHUBERT_25HZ = SSLUnits.Config(
    "slprl/mhubert-base-25hz",
    clusters=500,
    layer=11,
    deduplicate=True,
    architecture={
        "model_type": "hubert",
        "conv_dim": [512] * 8,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2, 2],
    },
)
# Of 640 samples to a unit.
VOCODER = UnitHifiGan.Config(
    "units", upsample_rates=(5, 4, 4, 4, 2), upsample_kernels=(11, 8, 8, 8, 4), predict_durations=True
)


def twist() -> Recipe:
    """25 Hz mHuBERT units without repeats -> OPT with its vocabulary replaced -> unit HiFi-GAN with durations."""
    base = gslm()
    return replace(
        base,
        name="twist",
        paper="arXiv:2305.13009",
        streams={"units": Stream(MHUBERT_25HZ)},
        lms={"ulm": replace(base.lms["ulm"], backbone=HF.Config("facebook/opt-1.3b", new_vocabulary=True))},
        vocoder=VOCODER,
        stages=(
            TrainStage(
                name="pretrain",
                task=PredictTokens(max_tokens=131072, max_length=1024),
                train=("lms.*",),
                trainer=Trainer.Config(400_000, learning_rate=1e-4, warmup_steps=100, precision="bf16"),
            ),
        ),
        published_parameters=1_210_000_000,
        notes={
            "unverified": "layer 11, the steps and the learning rate; the place of HuBERT's added convolution and the "
            "rates of the vocoder; OPT-1.3B without its text table has 1.21 B",
        },
    )
