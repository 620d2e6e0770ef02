"""GSLM (Lakhotia et al. 2021): the first textless speech language model."""

from lalia.layouts import Flat
from lalia.lm import Linear, Lookup, Sampler, Sampling, SpeechLM, Transformer
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import SSLUnits
from lalia.training import PredictTokens, Trainer, TrainPart, TrainStage
from lalia.vocoders import Chain, Tacotron2, WaveGlow


def gslm() -> Recipe:
    """HuBERT units without repeats -> a Transformer from scratch -> Tacotron 2 -> WaveGlow."""
    return Recipe(
        name="gslm",
        paper="arXiv:2102.01192",
        streams={
            # Layer 6 is given for pGSLM's units; GSLM's own is unverified. KM100 is one of its three sizes.
            "units": Stream(SSLUnits.Config("facebook/hubert-base-ls960", layer=6, clusters=100, deduplicate=True))
        },
        lms={
            "ulm": SpeechLM.Config(
                layout=Flat("units"),
                inputs={"units": Lookup()},
                # fairseq's transformer_lm_big: pre-norm, ReLU, sinusoidal positions, tied embeddings.
                backbone=Transformer.Config(
                    num_layers=12,
                    num_heads=16,
                    dim=1024,
                    ffn_dim=4096,
                    context=3072,
                    positions="sinusoidal",
                    norm="layer",
                    activation="relu",
                    bias=True,
                    dropout=0.1,
                ),
                heads={"units": Linear.Config(tied=True)},
                sampler=Sampler(Sampling(temperature=0.7)),
            )
        },
        vocoder=Chain.Config((Tacotron2.Config("units"),), WaveGlow.Config("mel")),
        stages=(
            TrainStage(
                name="pretrain",
                task=PredictTokens(max_tokens=32768, max_length=3072),
                train=("lms.*",),
                trainer=Trainer.Config(
                    500_000,
                    learning_rate=5e-4,
                    betas=(0.9, 0.98),
                    warmup_steps=4000,
                    schedule="inverse_sqrt",
                    precision="bf16",
                    eval_every=5000,
                    save_every=5000,
                ),
            ),
            # GSLM says only that both are trained on LJSpeech. The numbers are those of the papers of the two
            # (arXiv:1712.05884 §3.1, arXiv:1811.00002 §3.2), unverified.
            TrainStage(
                name="spectrogram",
                task=TrainPart("mel", max_tokens=32768, max_length=800),
                train=("vocoder.stages.*",),
                trainer=Trainer.Config(
                    100_000,
                    learning_rate=1e-3,
                    betas=(0.9, 0.999),
                    eps=1e-6,
                    weight_decay=1e-6,
                    min_lr_ratio=0.01,
                    eval_every=5000,
                    save_every=5000,
                ),
            ),
            TrainStage(
                name="waveform",
                task=TrainPart("audio", seconds=0.72, batch_size=24),
                train=("vocoder.vocoder.*",),
                trainer=Trainer.Config(
                    580_000,
                    learning_rate=1e-4,
                    betas=(0.9, 0.999),
                    weight_decay=0.0,
                    schedule="constant",
                    precision="bf16",
                    eval_every=5000,
                    save_every=5000,
                ),
            ),
        ),
    )
