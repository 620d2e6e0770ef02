"""Options that several commands share, and checks of where they write."""

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lalia.errors import AudioError, ConfigError
from lalia.folders import check_writable

__all__ = [
    "DEFAULT_MODEL",
    "TALKING_MODEL",
    "AudioPath",
    "AudioPaths",
    "Corpora",
    "Device",
    "Dtype",
    "Json",
    "ModelName",
    "Seed",
    "Settings",
    "SoundFile",
    "Voice",
    "check_sound_file",
    "load_model",
    "load_speaker",
    "overrides_of",
    "pairs_of",
    "written",
]

DEFAULT_MODEL, TALKING_MODEL = "mini-gslm", "mini"

AudioPath = Annotated[str, typer.Argument(metavar="AUDIO", help="A recording; - is standard input.")]
AudioPaths = Annotated[list[str], typer.Argument(metavar="AUDIO...", help="Recordings; - is standard input.")]
Corpora = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="Folders, recordings, manifests (.jsonl) or cut sets.")
]
ModelName = Annotated[str, typer.Option("--model", help="A bundled model, the directory of one, or a hub id.")]
SoundFile = Annotated[Path, typer.Option("-o", "--output", help="Where to write the sound; the suffix is its format.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16", "int8"],
    typer.Option("--dtype", help="Of the weights; int8 is that of language models alone, on a CPU."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Makes it repeatable.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A field of the configuration, by dotted path.")
]
Voice = Annotated[str | None, typer.Option("--voice", help="Of the vocoder, by name or number; the first by default.")]


def check_sound_file(path: Path, sample_rate: int) -> None:
    """Say so before the work, not after it, when its result cannot be written.

    :raises LaliaError: the folder is missing or closed, or the suffix is not of a format that holds such sound.
    """
    import torch

    from lalia.audio import Audio

    check_writable(path)
    with tempfile.TemporaryDirectory() as folder:
        try:
            Audio(torch.zeros(sample_rate // 10), sample_rate).save(Path(folder) / path.name)
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).rsplit(":", 1)[-1].strip().rstrip(".")
            raise AudioError(
                f"{path.name} cannot hold sound at {sample_rate} Hz ({reason}). Write .wav or .flac."
            ) from None


def load_model(name: str, device: str, dtype: str, lm: str | None = None) -> Any:
    """A model where and as precise as it is asked for.

    :param lm: another text LM than its own.
    :raises LaliaError: there is no such model, or no such device here.
    """
    import torch

    from lalia.model import load

    if dtype == "int8":
        model = load(name, device=device, lm=lm)
        model.quantize()
    else:
        model = load(name, device=device, dtype=getattr(torch, dtype), lm=lm)
        model.compact()
    return model


def load_speaker(name: str, output: Path, device: str, dtype: str) -> Any:
    """A model with a vocoder whose sound can be written."""
    model = load_model(name, device, dtype)
    if model.vocoder is None:
        raise ConfigError(f"Model {model.recipe.name!r} has no vocoder. Choose another model.")
    check_sound_file(output, model.vocoder.sample_rate)
    return model


def written(sound: Any, path: Path) -> dict[str, Any]:
    """What JSON says of sound that was written."""
    return {"audio": str(path), "sample_rate": sound.sample_rate, "seconds": sound.seconds}


def overrides_of(settings: list[str] | None, example: str = "trainer.learning_rate=1e-4") -> dict[str, str]:
    """The fields that ``--set`` names, with the text of their values.

    :raises ConfigError: one has no value.
    """
    return pairs_of("--set", settings, example)


def pairs_of(option: str, items: list[str] | None, example: str) -> dict[str, str]:
    """What an option that is given as KEY=VALUE, again and again, says.

    :raises ConfigError: one has no value.
    """
    pairs = {}
    for item in items or []:
        key, sign, value = item.partition("=")
        if not sign:
            raise ConfigError(f"{option} {item!r} has no '='. Write {option} {example}.")
        pairs[key.strip()] = value
    return pairs
