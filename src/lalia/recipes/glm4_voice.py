"""GLM-4-Voice (Zeng et al. 2024): it answers in 13 tokens of text and 26 of speech by turns."""

from lalia.layouts import Chunks, Concat, Flat
from lalia.lm import HF, Linear, Lookup, SpeechLM
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import SSLUnits, Text
from lalia.training import PredictTokens, Trainer, TrainStage
from lalia.vocoders import UnitHifiGan

GLM = "THUDM/glm-4-9b"
ARCHITECTURE = {
    "model_type": "glm",
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 151552,
    "attention_bias": True,
}


def glm4_voice() -> Recipe:
    """Units of Whisper in and out, one vocabulary with GLM-4's text -> chunks of both -> sound."""
    units = SSLUnits.Config("openai/whisper-large-v3", layer=16, clusters=16384, pool=4)
    return Recipe(
        name="glm4_voice",
        paper="arXiv:2412.02612",
        streams={
            "question": Stream(units, channel="user"),
            "text": Stream(Text.Config(GLM, vocabulary_size=151552, end=151329)),
            "speech": Stream(units),
        },
        lms={
            "glm": SpeechLM.Config(
                layout=Concat((Flat("question"), Chunks({"text": 13, "speech": 26}))),
                inputs={
                    "question": Lookup(tied_to="speech"),
                    "text": Lookup("all"),
                    "speech": Lookup("all"),
                },
                backbone=HF.Config(GLM, architecture=ARCHITECTURE),
                heads={s: Linear.Config() for s in ("text", "speech")},
            )
        },
        vocoder=UnitHifiGan.Config("speech", upsample_rates=(8, 5, 4, 4, 2), upsample_kernels=(16, 11, 8, 8, 4)),
        stages=(
            TrainStage(
                name="finetune",
                task=PredictTokens(max_tokens=32768),
                train=("lms.*",),
                trainer=Trainer.Config(20_000, learning_rate=1e-5, precision="bf16", min_lr_ratio=0.1),
            ),
        ),
        notes={
            "departure": "k-means in place of Whisper's vector quantisation, a unit HiFi-GAN in place of flow matching",
            "unverified": "the layer; the steps; the pre-training before is left out",
        },
    )
