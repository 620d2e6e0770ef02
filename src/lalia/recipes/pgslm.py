"""pGSLM (Kharitonov et al. 2021): units with their prosody, which is predicted one step behind them."""

from dataclasses import replace

from lalia.layouts import Parallel
from lalia.lm import Linear, Lookup, SpeechLM
from lalia.recipe import Recipe, Stream
from lalia.recipes.gslm import gslm
from lalia.tokenizers import Durations, Pitch
from lalia.training import PredictTokens, TrainStage
from lalia.vocoders import UnitHifiGan


def pgslm() -> Recipe:
    """Units, durations and pitch, one of each per run -> GSLM's Transformer -> a unit HiFi-GAN that has all three."""
    base = gslm()
    streams = ("units", "durations", "log_f0")
    return Recipe(
        name="pgslm",
        paper="arXiv:2109.03264",
        streams={
            "units": base.streams["units"],
            "durations": Stream(Durations.Config(bins=32), per_run_of="units"),
            "log_f0": Stream(Pitch.Config(clusters=32, normalize="speaker"), per_run_of="units"),
        },
        lms={
            "ulm": SpeechLM.Config(
                layout=Parallel(streams, delays=(0, 1, 1)),
                inputs={s: Lookup() for s in streams},
                backbone=base.lms["ulm"].backbone,
                heads={s: Linear.Config() for s in streams},
                sampler=base.lms["ulm"].sampler,
            )
        },
        vocoder=UnitHifiGan.Config("units", durations="durations", conditions=("log_f0",)),
        stages=(
            TrainStage(
                name="pretrain",
                task=PredictTokens(weights={"units": 1.0, "durations": 0.5, "log_f0": 0.5}, max_tokens=65536),
                train=("lms.*",),
                trainer=replace(base.stages[0].trainer, max_steps=500_000),
            ),
        ),
        notes={"weights": "of the losses of durations and pitch, 0.5 each, as '1.0;0.5;...' of its own criterion"},
    )
