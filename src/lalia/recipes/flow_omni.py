"""Flow-Omni (Yuan et al. 2024): text and mel spectra side by side, each frame made by a flow."""

from lalia.layouts import Concat, Flat, Parallel
from lalia.lm import HF, Flow, Linear, Lookup, Project, SpeechLM
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import Features, Mel, States, Text
from lalia.training import PredictTokens, Trainer, TrainStage
from lalia.vocoders import HifiGan

QWEN = "Qwen/Qwen2-0.5B-Instruct"


def flow_omni() -> Recipe:
    """Whisper features -> Qwen2 -> text, and mel frames by flow matching -> HiFi-GAN."""

    def stage(name: str, rate: float, *train: str) -> TrainStage:
        trainer = Trainer.Config(100_000, learning_rate=rate, warmup_steps=1000, precision="bf16")
        return TrainStage(name=name, task=PredictTokens(max_tokens=16384), train=train, trainer=trainer)

    answer, frames = Parallel(("text", "state", "mel"), delays=(0, 0, 1), together={"mel": "state"}), Project.Config()
    return Recipe(
        name="flow_omni",
        paper="arXiv:2412.04917",
        streams={
            "question": Stream(Features.Config("openai/whisper-small"), channel="user"),
            "text": Stream(Text.Config(QWEN, vocabulary_size=151936, end=151645)),
            "state": Stream(States.Config(rate=62.5), aligned_to="mel"),
            "mel": Stream(Mel.Config(bins=80, sample_rate=16000, hop=256, normalize=True)),
        },
        lms={
            "lm": SpeechLM.Config(
                # Text leads by a step, and so does the state that says whether there is a frame.
                layout=Concat((Flat("question"), answer)),
                inputs={"question": Project.Config(hidden=2048), "text": Lookup(), "state": Lookup(), "mel": frames},
                backbone=HF.Config(QWEN),
                heads={
                    "text": Linear.Config(),
                    "state": Linear.Config(),
                    "mel": Flow.Config(num_layers=3, dim=1024, steps=10, stops=False),
                },
            )
        },
        vocoder=HifiGan.Config("mel"),
        stages=(
            # First what is new, then all of it.
            stage(
                "align", 1e-4, "lms.lm.inputs.*", "lms.lm.tables.state.*", "lms.lm.heads.state.*", "lms.lm.heads.mel.*"
            ),
            stage("finetune", 5e-6, "lms.*"),
        ),
        notes={
            "unverified": "the size of Qwen2, the mel frames, the shape of the flow; the source is second-hand",
        },
    )
