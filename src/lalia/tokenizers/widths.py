"""The widths of well-known speech encoders and text LMs, so that a stream's spec needs no weights."""

import re
from collections.abc import Mapping
from typing import Any

from lalia.errors import ConfigError

__all__ = ["width_of", "width_of_text"]

_WIDTHS: Mapping[str, int] = {
    r"whisper-tiny": 384,
    r"whisper-base": 512,
    r"whisper-small": 768,
    r"whisper-medium": 1024,
    r"whisper-(large|turbo)": 1280,
    r"m?hubert-(base|147)": 768,
    r"hubert-large": 1024,
    r"hubert-xlarge": 1280,
    r"wav2vec2-base": 768,
    r"wav2vec2-(large|xls-r-300m|conformer)": 1024,
    r"wav2vec2-xls-r-1b": 1280,
    r"wav2vec2-xls-r-2b": 1920,
    r"wavlm-base": 768,
    r"wavlm-large": 1024,
    r"w2v-bert-2": 1024,
}
"""By how the last part of the name begins. From the configurations of the models on the hub."""


def width_of(name: str, architecture: Mapping[str, Any] | None = None) -> int:
    """Features per frame of an encoder.

    :param name: as for ``SpeechEncoder``.
    :param architecture: its ``config.json``, which tells best.
    :raises ConfigError: neither tells.
    """
    for key in ("d_model", "hidden_size"):
        if architecture is not None and key in architecture:
            return int(architecture[key])
    last = name.rstrip("/").rpartition("/")[2].lower()
    for pattern, width in _WIDTHS.items():
        if re.match(pattern, last):
            return width
    raise ConfigError(f"How wide the features of {name!r} are is not known. Set dim.")


_TEXT_WIDTHS: Mapping[str, int] = {
    r"smollm2-135m": 576,
    r"smollm2-360m": 960,
    r"smollm2-1\.7b": 2048,
    r"qwen2(\.5)?-0\.5b": 896,
    r"qwen2(\.5)?-1\.5b": 1536,
    r"qwen2-7b|qwen2\.5-7b": 3584,
    r"llama-3\.2-1b": 2048,
    r"llama-3\.2-3b": 3072,
    r"llama-3(\.1)?-8b": 4096,
}


def width_of_text(name: str) -> int:
    """The width of the embeddings of a text LM.

    :param name: known weights, a directory or a hub id.
    :raises ConfigError: it does not tell.
    """
    last = name.rstrip("/").rpartition("/")[2].lower()
    for pattern, width in _TEXT_WIDTHS.items():
        if re.match(pattern, last):
            return width
    raise ConfigError(f"How wide the embeddings of {name!r} are is not known. Set dim.")
