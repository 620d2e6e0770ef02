"""Mini-Omni (Xie and Wu 2024): it speaks while it thinks, text and the codes of its voice side by side."""

from lalia.layouts import Concat, Flat, Parallel
from lalia.lm import HF, Linear, Lookup, Project, SpeechLM
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import SNAC, Features, Text
from lalia.training import PredictTokens, Trainer, TrainStage
from lalia.vocoders import CodecDecoder

QWEN = "Qwen/Qwen2-0.5B"

# Text first; each of the 7 codes of a frame a step later than the one before it.
DELAYS = tuple(range(8))


def mini_omni() -> Recipe:
    """Whisper features -> Qwen2 -> text and, by as many softmaxes, 7 codes of SNAC at each step -> SNAC's decoder."""
    snac = SNAC.Config("hubertsiuzdak/snac_24khz")

    def stage(name: str, steps: int, rate: float, train: tuple[str, ...], **weights: float) -> TrainStage:
        trainer = Trainer.Config(steps, learning_rate=rate, min_lr_ratio=4e-6 / rate, precision="bf16")
        return TrainStage(name=name, task=PredictTokens(weights=weights), train=train, trainer=trainer)

    return Recipe(
        name="mini_omni",
        paper="arXiv:2408.16725",
        streams={
            "question": Stream(Features.Config("openai/whisper-small"), channel="user"),
            "text": Stream(Text.Config(QWEN, vocabulary_size=151936)),
            "speech": Stream(snac),
        },
        lms={
            "lm": SpeechLM.Config(
                layout=Concat((Flat("question"), Parallel(("text", "speech"), delays=DELAYS))),
                inputs={
                    "question": Project.Config(hidden=4864, activation="swiglu"),
                    "text": Lookup(),
                    "speech": Lookup(),
                },
                combine="mean",
                backbone=HF.Config(QWEN),
                heads={name: Linear.Config(tied=True) for name in ("text", "speech")},
            )
        },
        vocoder=CodecDecoder.Config("speech", snac),
        stages=(
            stage("adapters", 20_000, 1e-3, ("lms.lm.inputs.*", "lms.lm.tables.speech.*")),
            stage("answers", 30_000, 4e-4, ("lms.lm.backbone.*", "lms.lm.tables.text.*"), speech=0.0),
            stage("all", 60_000, 4e-4, ("lms.*",)),
        ),
        notes={
            "unverified": "steps and rates (its authors', not the paper's); that tables are tied; how losses weigh",
            "departure": "no adapter for synthesis, which was not published; a mean of what there is, without padding",
        },
    )
