"""dGSLM (Nguyen et al. 2022): two speakers at once, from the sound of conversations alone."""

from lalia.layouts import Parallel
from lalia.lm import DualTower, EdgeUnits, Lookup, SpeechLM
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import SSLUnits
from lalia.training import PredictTokens, Trainer, TrainStage
from lalia.vocoders import Channels, UnitHifiGan


def dgslm() -> Recipe:
    """Two channels of HuBERT units -> a tower for each that looks at the other -> a unit HiFi-GAN for each."""
    # HuBERT as trained on Fisher (three iterations); its weights are fairseq's, which need conversion.
    units = SSLUnits.Config("fisher-hubert", layer=12, clusters=500)
    return Recipe(
        name="dgslm",
        paper="arXiv:2203.16502",
        streams={"a": Stream(units, channel="A"), "b": Stream(units, channel="B")},
        lms={
            "dlm": SpeechLM.Config(
                layout=Parallel(("a", "b"), closed=False),
                inputs={"a": Lookup(), "b": Lookup(tied_to="a")},
                backbone=DualTower.Config(num_layers=6, cross_layers=4, num_heads=8, dim=512, ffn_dim=2048),
                towers=("a", "b"),
                heads={name: EdgeUnits.Config(delayed=True) for name in ("a", "b")},
            )
        },
        vocoder=Channels.Config(("a", "b"), UnitHifiGan.Config("a")),
        stages=(
            TrainStage(
                name="fisher",
                task=PredictTokens(max_tokens=36864, max_length=6144),
                train=("lms.*",),
                trainer=Trainer.Config(
                    250_000, learning_rate=2e-4, betas=(0.9, 0.98), warmup_steps=1000, precision="bf16"
                ),
            ),
        ),
        notes={"unverified": "the numbers of the stage; each channel's head is its own here"},
    )
