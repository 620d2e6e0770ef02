"""Training of a codec on recordings alone: no tokens, no transcripts."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lalia.config import Configuration, to_dict
from lalia.data import discover
from lalia.device import device_of
from lalia.errors import CheckpointError
from lalia.model import load_tokenizer, save_tokenizer
from lalia.nn.discriminators import MultiSpectrum
from lalia.nn.frame_net import FrameNet
from lalia.nn.quantize import ResidualVQ
from lalia.store import DESCRIPTION
from lalia.tokenizers import Codec
from lalia.train.memory import remember
from lalia.train.run import claim
from lalia.training import TrainCodec, Trainer, checkpoint
from lalia.training.distributed import is_main, process_group
from lalia.training.objectives.codec_gan import CodecGAN

__all__ = ["CodecRun", "train_codec"]

_TRAINING = "training"


def _small() -> Codec.Config:
    """16 kHz, 50 frames a second, 12 codebooks of 1024; two CPU cores are enough to train it."""
    network = FrameNet(hop=320, dim=64, width=192, ffn_dim=576, num_layers=4)
    return Codec.Config(16000, network, ResidualVQ.Config(1024, 12, dropout=0.5))


def _task() -> TrainCodec:
    gan = CodecGAN.Config(
        discriminators=(MultiSpectrum.Config(sizes=(1024, 512, 256), channels=16),),
        warmup_steps=6000,
        judged_frames=25,
        wave_weight=1.0,
        mel_sizes=(128, 256, 512, 1024, 2048),
    )
    return TrainCodec(gan, seconds=0.8, batch_size=8)


def _trainer() -> Trainer.Config:
    return Trainer.Config(
        20_000,
        learning_rate=1e-3,
        betas=(0.8, 0.99),
        weight_decay=0.0,
        schedule="cosine",
        warmup_steps=200,
        eval_every=500,
        save_every=500,
        log_every=50,
        best_metric="mel",
    )


@dataclass(frozen=True, kw_only=True)
class CodecRun(Configuration):
    """Everything that a run of training a codec depends on but its data.

    :param codec: what is trained; by default a small one for speech.
    :param task: by which losses, on which batches.
    :param trainer: for how long, how fast.
    """

    codec: Codec.Config = field(default_factory=_small)
    task: TrainCodec = field(default_factory=_task)
    trainer: Trainer.Config = field(default_factory=_trainer)


def train_codec(
    config: CodecRun | Codec.Config,
    data: Sequence[str | Path],
    run: str | Path,
    *,
    init: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Train a codec on recordings; under torchrun, by every process.

    The run gets ``plan.json``, ``training/`` (checkpoints and metrics) and in the end the codec itself, which every
    command takes as ``--tokenizer``. It is the best on held-out speakers, where there are any, with normalised weights
    folded.

    :param config: the run, or only the codec.
    :param data: folders, recordings, manifests or cut sets.
    :param init: a trained codec to begin with, in place of that of the run.
    :param resume: go on where the run stopped.
    :param tell: called with what is worth knowing.
    :raises DataError: there are no recordings, or none is long enough.
    :raises OutputError: the folder holds something else, or another process is training in it.
    :raises CheckpointError: the run was started with other settings, or there is no such codec.
    """
    plan = config if isinstance(config, CodecRun) else CodecRun(codec=config)
    begin = None if init is None else load_tokenizer(init)
    if begin is not None:
        if not isinstance(begin, Codec):
            raise CheckpointError(f"{init} holds {type(begin).__name__}, not a Codec. Name a codec that lalia trained.")
        plan = replace(plan, codec=begin.config)
    folder = Path(run)
    manifest = discover([Path(p) for p in data])
    with process_group(device_of(device)) as world, claim(folder, _TRAINING) if is_main() else nullcontext():
        if is_main():
            begun = bool(checkpoint.steps(folder / _TRAINING))
            remember(folder, {"recipe": to_dict(plan)}, begun=begun, resume=resume)
        parts = manifest.split()
        train, dev = parts["train"], parts["dev"]
        if not len(train):
            # So few speakers that all fell to the other parts: learning from them beats not learning.
            train, dev = manifest, manifest[:0]
        elif not len(dev) and len((single := train.split("id"))["dev"]) and len(single["train"]):
            # As few fell to what is held out: single recordings are.
            train, dev = single["train"], single["dev"]
        codec: Codec = (plan.codec.build() if begin is None else begin).to(world.device)
        torch.manual_seed(plan.trainer.seed)
        prepared = plan.task.prepare(codec, train, dev, plan.trainer.seed, begun=begin is not None)
        trainer: Trainer = plan.trainer.build(
            prepared.objective,
            prepared.batches,
            folder / _TRAINING,
            validation=prepared.validation,
            save_model=lambda path: save_tokenizer(codec.plain(), path),
        )
        trainer.fit(resume=resume)
        if is_main():
            best = folder / _TRAINING / "best"
            save_tokenizer(load_tokenizer(best if (best / DESCRIPTION).exists() else best.with_name("last")), folder)
            skipped = getattr(prepared.batches, "skipped", {})
            for name, reason in skipped.items():
                (tell or _silent)(f"skipped {name}: {reason}")
    return folder


def _silent(text: str) -> None:
    pass
