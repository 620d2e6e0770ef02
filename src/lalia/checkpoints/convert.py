"""From the files that another program uses to a directory that ``from_pretrained`` opens."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lalia.checkpoints import ctranslate2, gguf, gguf_llama, whisper
from lalia.checkpoints.known import Format
from lalia.errors import WeightsError
from lalia.files import atomic_write

__all__ = ["convert"]


def convert(kind: Format, source: Path, target: Path) -> None:
    """Write ``model.safetensors``, ``config.json`` and what belongs to them; of a checkpoint of PyTorch the weights
    alone, and networks in ONNX as they are.

    The same input gives the same bytes.

    :param source: the folder with the files of the other program.
    :param target: an existing folder.
    :raises WeightsError: the files are damaged or of another model.
    """
    converters: dict[Format, Callable[[Path, Path], None]] = {
        "ctranslate2-whisper": _ctranslate2_whisper,
        "gguf-llama": _gguf_llama,
        "onnx": _onnx,
        "torch": _torch,
    }
    converters[kind](source, target)


def _ctranslate2_whisper(source: Path, target: Path) -> None:
    from safetensors.numpy import save_file

    model = ctranslate2.read(source / "model.bin")
    if model.spec != "WhisperSpec":
        raise WeightsError(f"{source / 'model.bin'} is a {model.spec}, not a WhisperSpec. Give a Whisper model.")
    variables = ctranslate2.dequantize(model.variables)
    settings, tokenizer = _read_json(source / "config.json"), _read_json(source / "tokenizer.json")
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    state = whisper.state_dict(variables)
    config = whisper.model_config(variables, special)
    documents = {
        "config.json": config,
        "generation_config.json": whisper.generation_config(config, settings, special),
        "preprocessor_config.json": whisper.preprocessor_config(config["num_mel_bins"]),
        "tokenizer_config.json": whisper.tokenizer_config(special, config["max_target_positions"]),
    }
    with atomic_write(target / "model.safetensors") as file:
        save_file(state, file, metadata={"format": "pt"})
    _write_json(target, documents)
    with atomic_write(target / "tokenizer.json") as file:
        file.write_bytes((source / "tokenizer.json").read_bytes())


def _gguf_llama(source: Path, target: Path) -> None:
    from safetensors.numpy import save_file

    model = gguf.read(source / "model.gguf")
    config = gguf_llama.model_config(model)
    documents = {
        "config.json": config,
        "generation_config.json": {k: config[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id")},
        "tokenizer_config.json": gguf_llama.tokenizer_config(model),
    }
    with atomic_write(target / "model.safetensors") as file:
        save_file(gguf_llama.state_dict(model), file, metadata={"format": "pt"})
    _write_json(target, documents)
    with atomic_write(target / "tokenizer.json") as file:
        file.write_text(gguf_llama.tokenizer(model), encoding="utf-8")


def _onnx(source: Path, target: Path) -> None:
    for file in source.glob("*.onnx"):
        shutil.copyfile(file, target / file.name)


def _torch(source: Path, target: Path) -> None:
    """The weights of a checkpoint of PyTorch, without what training kept beside them."""
    import torch
    from safetensors.torch import save_file

    try:
        # Tensors and plain containers: no code in the file is run.
        checkpoint = torch.load(source / "model.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  what a damaged file can raise is not part of any interface
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise WeightsError(f"{source / 'model.pt'} holds no plain tensors ({reason}). Download it again.") from None
    states = [checkpoint[name] for name in ("model", "model_state") if name in checkpoint]
    if len(states) != 1:
        raise WeightsError(f"{source / 'model.pt'} has {', '.join(checkpoint)}, not one model. Download it again.")
    state = {name: t.contiguous() for name, t in states[0].items() if t.is_floating_point()}
    with atomic_write(target / "model.safetensors") as file:
        save_file(state, file, metadata={"format": "pt"})


def _write_json(target: Path, documents: Mapping[str, Any]) -> None:
    for name, document in documents.items():
        with atomic_write(target / name) as file:
            file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}). Download the model again.") from None
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error}). Download the model again.") from None
