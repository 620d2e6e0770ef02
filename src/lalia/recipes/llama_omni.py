"""LLaMA-Omni (Fang et al. 2024): a text model that hears, and speaks by CTC along its own hidden states."""

from lalia.layouts import Concat, Flat
from lalia.lm import CTC, HF, Linear, Lookup, Project, SpeechLM, Transformer
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import Features, SSLUnits, Text
from lalia.training import PredictTokens, Trainer, TrainStage
from lalia.vocoders import UnitHifiGan

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def llama_omni() -> Recipe:
    """Whisper features, five to a frame -> Llama 3.1 -> text, and units along its states -> a unit HiFi-GAN."""
    trainer = Trainer.Config(18_750, learning_rate=2e-5, warmup_steps=560, precision="bf16")
    return Recipe(
        name="llama_omni",
        paper="arXiv:2409.06666",
        streams={
            "question": Stream(Features.Config("openai/whisper-large-v3", stack=5), channel="user"),
            "text": Stream(Text.Config(LLAMA, vocabulary_size=128256, end=128009)),
            "units": Stream(SSLUnits.Config("utter-project/mHuBERT-147", layer=11, clusters=1000, deduplicate=True)),
        },
        lms={
            "llm": SpeechLM.Config(
                layout=Concat((Flat("question"), Flat("text"))),
                inputs={"question": Project.Config(hidden=2048), "text": Lookup()},
                backbone=HF.Config(LLAMA),
                heads={"text": Linear.Config()},
            ),
            "speech_decoder": SpeechLM.Config(
                layout=Flat("llm.hidden"),
                inputs={"llm.hidden": Project.Config()},
                backbone=Transformer.Config(num_layers=2, num_heads=32, dim=4096, ffn_dim=11008),
                heads={"units": CTC.Config()},
                upsample=25,
            ),
        },
        vocoder=UnitHifiGan.Config("units", predict_durations=True),
        stages=(
            TrainStage(name="respond", task=PredictTokens("llm"), train=("lms.llm.*",), trainer=trainer),
            TrainStage(
                name="speak", task=PredictTokens("speech_decoder"), train=("lms.speech_decoder.*",), trainer=trainer
            ),
        ),
        notes={"unverified": "the mHuBERT whose layer 11 is read; the steps of the stages"},
    )
