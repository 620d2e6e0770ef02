"""TWIST (Hassid et al. 2023): a textless language model that begins as a text model."""

from dataclasses import replace

from lalia.lm import HF
from lalia.recipe import Recipe, Stream
from lalia.recipes.gslm import gslm
from lalia.tokenizers import SSLUnits
from lalia.training import PredictTokens, Trainer, TrainStage
from lalia.vocoders import UnitHifiGan


def twist() -> Recipe:
    """25 Hz mHuBERT units without repeats -> OPT with its vocabulary replaced -> unit HiFi-GAN with durations."""
    base = gslm()
    return replace(
        base,
        name="twist",
        paper="arXiv:2305.13009",
        streams={"units": Stream(SSLUnits.Config("slprl/mhubert-base-25hz", clusters=500, layer=11, deduplicate=True))},
        lms={"ulm": replace(base.lms["ulm"], backbone=HF.Config("facebook/opt-1.3b", new_vocabulary=True))},
        vocoder=UnitHifiGan.Config("units", predict_durations=True),
        stages=(
            TrainStage(
                name="pretrain",
                task=PredictTokens(max_tokens=131072, max_length=1024),
                train=("lms.*",),
                trainer=Trainer.Config(400_000, learning_rate=1e-4, warmup_steps=100, precision="bf16"),
            ),
        ),
        published_parameters=1_210_000_000,
        notes={"unverified": "layer 11, the steps and the learning rate; OPT-1.3B without its text table has 1.21 B"},
    )
