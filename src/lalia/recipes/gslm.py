"""GSLM (Lakhotia et al. 2021): the first textless speech language model."""

from typing import Any

from lalia.layouts import Flat
from lalia.lm import Linear, Lookup, Sampler, Sampling, SpeechLM, Transformer
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import SSLUnits
from lalia.training import PredictTokens, Task, Trainer, TrainPart, TrainStage
from lalia.vocoders import Chain, Tacotron2, WaveGlow

SIZE: dict[str, Any] = {"num_layers": 12, "num_heads": 16, "dim": 1024, "ffn_dim": 4096, "context": 3072}
# fairseq's transformer_lm_big: pre-norm, ReLU, sinusoidal positions, tied embeddings.
STYLE: dict[str, Any] = {"positions": "sinusoidal", "norm": "layer", "activation": "relu", "bias": True}


def gslm() -> Recipe:
    """HuBERT units without repeats -> a Transformer from scratch -> Tacotron 2 -> WaveGlow."""

    def stage(name: str, task: Task, train: str, steps: int, betas: tuple[float, float], **more: Any) -> TrainStage:
        trainer = Trainer.Config(steps, betas=betas, eval_every=5000, save_every=5000, **more)
        return TrainStage(name=name, task=task, train=(train,), trainer=trainer)

    # Layer 6 is given for pGSLM's units; GSLM's own is unverified. KM100 is one of its three sizes.
    units = SSLUnits.Config("facebook/hubert-base-ls960", layer=6, clusters=100, deduplicate=True)
    lm = SpeechLM.Config(
        layout=Flat("units"),
        inputs={"units": Lookup()},
        backbone=Transformer.Config(**SIZE, **STYLE, dropout=0.1),
        heads={"units": Linear.Config(tied=True)},
        sampler=Sampler(Sampling(temperature=0.7)),
    )
    lm_rate = {"learning_rate": 5e-4, "warmup_steps": 4000, "schedule": "inverse_sqrt", "precision": "bf16"}
    # GSLM says of its vocoder only that it is trained on LJSpeech: the numbers are those of the papers of its two parts
    # (arXiv:1712.05884 §3.1, arXiv:1811.00002 §3.2), unverified.
    mel_rate = {"learning_rate": 1e-3, "eps": 1e-6, "weight_decay": 1e-6, "min_lr_ratio": 0.01}
    wave_rate = {"learning_rate": 1e-4, "weight_decay": 0.0, "schedule": "constant", "precision": "bf16"}
    tokens, wave = PredictTokens(max_tokens=32768, max_length=3072), TrainPart("audio", seconds=0.72, batch_size=24)
    return Recipe(
        name="gslm",
        paper="arXiv:2102.01192",
        streams={"units": Stream(units)},
        lms={"ulm": lm},
        vocoder=Chain.Config((Tacotron2.Config("units"),), WaveGlow.Config("mel")),
        stages=(
            stage("pretrain", tokens, "lms.*", 500_000, (0.9, 0.98), **lm_rate),
            stage(
                "spectrogram",
                TrainPart("mel", max_tokens=32768, max_length=800),
                "vocoder.stages.*",
                100_000,
                (0.9, 0.999),
                **mel_rate,
            ),
            stage("waveform", wave, "vocoder.vocoder.*", 580_000, (0.9, 0.999), **wave_rate),
        ),
    )
