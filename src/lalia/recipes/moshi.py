"""Moshi (Defossez et al. 2024): it hears and speaks at once, with an inner monologue in text."""

from lalia.layouts import Parallel
from lalia.lm import Depth, DepthTransformer, Linear, Lookup, Sampler, Sampling, SpeechLM, Transformer, Weight
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import Mimi, Text
from lalia.training import PredictTokens, Trainer, TrainStage
from lalia.vocoders import CodecDecoder

# The words of a frame come first, then the meaning of its sound, then, a frame later, the rest of the sound.
DELAYS = (0, 1, 1, 1, 1, 1, 1, 1)

# Its meaning counts 100 times an acoustic code, and a frame in which no word is half of one in which one is.
WEIGHTS = {"moshi": Weight(codebooks=(100.0, *[1.0] * 7)), "text": Weight(ids=((3, 0.5), (0, 0.5)))}


def moshi() -> Recipe:
    """Text and 8 codebooks of its own and 8 of the user's -> Helium and a depth Transformer -> Mimi's decoder."""
    mimi = Mimi.Config("kyutai/mimi", num_codebooks=8)
    text = Text.Config("kyutai/moshiko-pytorch-bf16", vocabulary_size=32000, rate=12.5, pad=3, end_of_pad=0)

    def stage(name: str, steps: int, rate: float) -> TrainStage:
        task = PredictTokens(weights=WEIGHTS, max_tokens=65536, max_length=51000)
        trainer = Trainer.Config(steps, learning_rate=rate, precision="bf16")
        return TrainStage(name=name, task=task, train=("lms.*",), trainer=trainer)

    return Recipe(
        name="moshi",
        paper="arXiv:2410.00037",
        streams={
            "text": Stream(text, aligned_to="moshi"),
            "moshi": Stream(mimi),
            "user": Stream(mimi, channel="user"),
        },
        lms={
            "helium": SpeechLM.Config(
                layout=Parallel(("text", "moshi", "user"), delays=(0, *DELAYS, *DELAYS), closed=False),
                inputs={"text": Lookup(), "moshi": Lookup(absent=True), "user": Lookup(absent=True)},
                backbone=Transformer.Config(num_layers=32, num_heads=32, dim=4096, ffn_dim=11264, context=3000),
                heads={
                    "text": Linear.Config(),
                    "moshi": Depth.Config(DepthTransformer.Config(ffn_dim=2816), first="text"),
                },
                sampler=Sampler(
                    Sampling(temperature=0.8, top_k=250), streams={"text": Sampling(temperature=0.7, top_k=25)}
                ),
            )
        },
        vocoder=CodecDecoder.Config("moshi", mimi),
        stages=(
            stage("audio", 1_000_000, 3e-5),
            stage("multistream", 100_000, 3e-6),
            stage("fisher", 10_000, 2e-6),
            stage("instruct", 30_000, 2e-6),
        ),
        published_parameters=7_690_000_000,
        notes={"unverified": "the learning rates; the text stage before, which has no sound, is left out"},
    )
