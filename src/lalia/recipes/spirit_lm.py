"""SpiRit-LM (Nguyen et al. 2024): spans of speech and of text in one sequence, from words to words."""

from dataclasses import replace

from lalia.layouts import Switch
from lalia.lm import HF, Linear, Lookup, SpeechLM
from lalia.recipe import Recipe, Stream
from lalia.recipes.twist import MHUBERT_25HZ, VOCODER
from lalia.tokenizers import Text
from lalia.training import Interleave, PredictTokens, Trainer, TrainStage

LLAMA = "meta-llama/Llama-2-7b-hf"


def spirit_lm() -> Recipe:
    """25 Hz HuBERT units and text by turns -> Llama 2 with units in its vocabulary -> a unit HiFi-GAN (base model)."""
    streams = ("speech", "text")
    return Recipe(
        name="spirit_lm",
        paper="arXiv:2402.05755",
        streams={
            "speech": Stream(replace(MHUBERT_25HZ, clusters=501)),
            "text": Stream(Text.Config(LLAMA, vocabulary_size=32000, end=2)),
        },
        lms={
            "lm": SpeechLM.Config(
                layout=Switch(streams),
                inputs={s: Lookup("all") for s in ("switch", *streams)},
                backbone=HF.Config(LLAMA),
                heads={s: Linear.Config() for s in ("switch", *streams)},
            )
        },
        vocoder=replace(VOCODER, stream="speech"),
        stages=(
            TrainStage(
                name="interleave",
                task=PredictTokens(
                    interleave=Interleave("speech", "text", first_words=(5, 15), second_words=(10, 30)),
                    max_tokens=1_000_000,
                    max_length=4096,
                ),
                train=("lms.*",),
                trainer=Trainer.Config(100_000, learning_rate=3e-5, schedule="constant", precision="bf16"),
            ),
        ),
        notes={"left out": "the speakers of its vocoder"},
    )
