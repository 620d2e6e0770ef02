"""The models that are compared: tokenizers × starts of the language model × vocoders, each part trained once.

``grid.py lm WORK TOKENIZER START`` and ``grid.py vocoder WORK TOKENIZER`` train a part, ``grid.py models WORK`` puts
them together, as ``WORK/models/TOKENIZER-START-VOCODER``. A part that is there is not trained again, and one that was
stopped goes on.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lalia.cli.console import progress, tell
from lalia.errors import LaliaError
from lalia.layouts import Flat, Parallel
from lalia.lm import HF, Linear, Lookup, Sampler, Sampling, SpeechLM
from lalia.model import Model, load_tokenizer
from lalia.nn.discriminators import MultiPeriod, MultiResolution
from lalia.nn.spectral import LogMel
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import Durations, Pitch
from lalia.train import train
from lalia.training import PredictTokens, Trainer, TrainStage, TrainVocoder
from lalia.training.objectives.gan import VocoderGAN
from lalia.vocoders import CodecDecoder, GriffinLim, UnitVocos, Vocoder

TOKENIZERS = ("whisper2", "whisper4", "prosody", "codec")
STARTS = ("cold", "text")
VOCODERS = {"vocos": "trained for the tokens", "plain": "the codec's own decoder, Griffin-Lim for units"}

TEXT_LM, LAYERS = "smollm2-135m-instruct", 4
VOICES = ("flite-slt", "flite-rms", "flite-awb", "flite-kal16")
BOOKS = 4
"""Codebooks of the codec that are predicted: more are more steps of sound than two cores learn in minutes."""

SAMPLER = Sampler(Sampling(temperature=0.8, top_p=0.95))
LM_RATE = Trainer.Config(
    400, learning_rate=6e-4, warmup_steps=30, weight_decay=0.1, precision="bf16", eval_every=100, save_every=100
)
VOCODER_RATE = Trainer.Config(
    900,
    learning_rate=6e-4,
    betas=(0.8, 0.99),
    warmup_steps=50,
    max_grad_norm=10.0,
    ema_decay=0.995,
    precision="bf16",
    eval_every=300,
    save_every=300,
    best_metric="mel",
)
GAN = VocoderGAN.Config(
    mel=LogMel.Config(16000, n_fft=1024, hop=160),
    warmup_steps=600,
    stft_weight=1.0,
    judged_frames=25,
    discriminators=(
        MultiPeriod.Config(channels=(16, 32, 64, 128, 128)),
        MultiResolution.Config(channels=8, sizes=(512, 1024)),
    ),
)


def grid_recipe(work: Path, tokenizer: str, start: str, vocoder: str) -> tuple[Recipe, dict[str, str]]:
    """One model of the grid, and what it takes its tokenizer from."""
    held = {"whisper2": "mini-gslm", "whisper4": str(work / "units-4"), "prosody": "mini-gslm", "codec": "mini-codec"}
    source = held[tokenizer]
    units = load_tokenizer(source).config
    streams = {"speech": Stream(units)}
    spoken: dict[str, Any] = {"predict_durations": True}
    plain: Vocoder.Config = GriffinLim.Config("speech", upsample=4, overlap=8)
    match tokenizer:
        case "codec":
            streams = {"speech": Stream(units, codebooks=(0, BOOKS))}
            spoken, plain = {}, CodecDecoder.Config("speech", units)
        case "prosody":
            streams |= {
                "durations": Stream(Durations.Config(bins=32), per_run_of="speech"),
                "log_f0": Stream(Pitch.Config(clusters=32, normalize="speaker"), per_run_of="speech"),
            }
            spoken = {"durations": "durations", "conditions": ("log_f0",)}
    delays = {"codec": tuple(range(BOOKS)), "prosody": (0, 1, 1)}.get(tokenizer)
    weights = {"speech": 1.0, "durations": 0.5, "log_f0": 0.5} if tokenizer == "prosody" else {}
    backbone = HF.Config(TEXT_LM, new_vocabulary=True, num_layers=LAYERS, pretrained=start == "text")
    pretrain = TrainStage(
        name="pretrain", task=PredictTokens(weights=weights, max_tokens=2048), train=("lms.*",), trainer=LM_RATE
    )
    speech = TrainVocoder(GAN, seconds=1.0, batch_size=8, voices=VOICES)
    trained = TrainStage(name="vocoder", task=speech, train=("vocoder.*",), trainer=VOCODER_RATE)
    vocos = UnitVocos.Config("speech", num_speakers=4, upsample=2, dim=192, ffn_dim=576, num_layers=6, **spoken)
    recipe = Recipe(
        name=f"grid-{tokenizer}",
        paper="after arXiv:2102.01192, 2305.13009, 2109.03264",
        streams=streams,
        lms={
            "ulm": SpeechLM.Config(
                layout=Flat("speech") if delays is None else Parallel(tuple(streams), delays=delays),
                inputs={name: Lookup() for name in streams},
                backbone=backbone,
                heads={name: Linear.Config() for name in streams},
                sampler=SAMPLER,
            )
        },
        vocoder=vocos if vocoder == "vocos" else plain,
        stages=(pretrain, trained) if vocoder == "vocos" else (pretrain,),
    )
    return recipe, {"speech": source}


def train_part(work: Path, part: str, tokenizer: str, start: str) -> None:
    """A language model, beside the vocoder that needs no training, or the vocoder that does."""
    run = work / "runs" / f"{tokenizer}-{start if part == 'lm' else 'vocos'}"
    recipe, tokenizers = grid_recipe(work, tokenizer, start, "plain" if part == "lm" else "vocos")
    with progress("Preparing", "s of speech") as report:
        train(
            recipe,
            [work / "lm.jsonl"],
            run,
            stage="pretrain" if part == "lm" else "vocoder",
            tokenizers=tokenizers,
            resume=(run / "plan.json").exists(),
            tell=tell,
            progress=report,
        )


def assemble(work: Path) -> None:
    """All models whose parts are there."""
    for tokenizer in TOKENIZERS:
        for start in STARTS:
            lm = Model.load(work / "runs" / f"{tokenizer}-{start}")
            lm.save(work / "models" / f"{tokenizer}-{start}-plain", dtype=torch.float16)
            spoken = Model.load(work / "runs" / f"{tokenizer}-vocos")
            recipe = replace(lm.recipe, vocoder=spoken.recipe.vocoder, stages=spoken.recipe.stages)
            whole = Model(recipe, learned=lm.learned, identities=lm.identities, lms=lm.lms)
            whole.vocoder.load_state_dict(spoken.vocoder.state_dict())
            whole.save(work / "models" / f"{tokenizer}-{start}-vocos", dtype=torch.float16)


def main() -> None:
    """Read the command line, and do one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("lm", "vocoder", "models"))
    parser.add_argument("work", type=Path)
    parser.add_argument("tokenizer", nargs="?", choices=TOKENIZERS)
    parser.add_argument("start", nargs="?", choices=STARTS, default="cold")
    given = parser.parse_args()
    if given.part == "models":
        assemble(given.work)
    elif given.tokenizer is None:
        parser.error(f"{given.part} needs a tokenizer")
    else:
        train_part(given.work, given.part, given.tokenizer, given.start)


if __name__ == "__main__":
    try:
        main()
    except LaliaError as error:
        sys.exit(f"error: {error}")
