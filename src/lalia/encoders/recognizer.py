"""A speech recogniser: Whisper with its weights, its rules about which tokens may come, and its vocabulary.

Shapes: N samples, T frames (50 Hz), D dim, V vocabulary.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.checkpoints import fetch
from lalia.checkpoints.tensors import read_config, read_tensors, weight_files
from lalia.config import Configurable
from lalia.errors import ConfigError, WeightsError
from lalia.files import sha256
from lalia.nn.whisper import Whisper, WhisperMel

__all__ = ["Recognizer", "Rules"]

_SAMPLE_RATE = 16000
_FRAME = 320
"""Samples of a frame of the encoder."""

_LETTERS = 95
"""Text tokens of a recogniser without weights: ASCII from the space on. Its special tokens follow: the end, the start,
no timestamps, no speech.
"""

_NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")


@dataclass(frozen=True)
class Rules:
    """What goes before a transcript, and what may be in it.

    :param prompt: ids with which every transcript begins: the start, the language and task, no timestamps.
    :param end: the id that ends a transcript; those below it are text.
    :param no_speech: the id whose probability after the first of the prompt says that nobody speaks (§3.8).
    :param suppressed: text that never comes: signs that stand for sounds in subtitles.
    :param suppressed_first: what no transcript begins with.
    """

    prompt: tuple[int, ...]
    end: int
    no_speech: int
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()


class Recognizer(Configurable, nn.Module):
    """Whisper for English, ready to read a transcript off a sound (``lalia.encoders.transcripts``)."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param name: known weights, a directory or a hub id.
        :param pretrained: load the weights; otherwise the architecture with random ones, the same each time, that
            writes single characters.
        :param architecture: the model's ``config.json`` as a mapping, for building it without weights.
        """

        name: str
        _: KW_ONLY
        pretrained: bool = True
        architecture: Mapping[str, Any] | None = None

        def __post_init__(self) -> None:
            if not self.pretrained and self.architecture is None:
                raise ConfigError(f"{self.name!r} without weights needs its architecture. Give it.")

    forbidden: Tensor
    forbidden_first: Tensor

    def __init__(self, config: Config) -> None:
        """
        :raises WeightsError: the weights cannot be had, or are not Whisper's.
        """
        super().__init__()
        self.config = config
        self.sample_rate = _SAMPLE_RATE
        self._folder = fetch(config.name) if config.pretrained else None
        if self._folder is None:
            self.rules = Rules((_LETTERS + 1, _LETTERS + 2), _LETTERS, _LETTERS + 3)
            self.net: Whisper = _random(_shape(config.architecture or {}, config.name))
        else:
            facts = read_config(self._folder)
            self.rules = _read_rules(self._folder)
            with torch.device("meta"):
                self.net = _shape(facts, config.name).build()
            _adopt(self.net, self._folder)
        self.mel = WhisperMel(self.net.config.num_mel_bins)
        vocabulary = self.net.config.vocabulary_size
        for name, ids in (("forbidden", ()), ("forbidden_first", self.rules.suppressed_first)):
            bias = torch.zeros(vocabulary)
            bias[self.rules.end + 1 :] = -torch.inf
            bias[[*self.rules.suppressed, *ids]] = -torch.inf
            self.register_buffer(name, bias, persistent=False)
        self.requires_grad_(False).eval()

    @cached_property
    def fingerprint(self) -> str:
        """What decides its output beside the configuration: the SHA-256 of the files of the weights."""
        return "+".join(sha256(file) for file in weight_files(self._folder)) if self._folder is not None else ""

    @property
    def longest(self) -> int:
        """Samples that it hears at once, at most: 30 s."""
        return self.net.config.source_positions * _FRAME

    def listen(self, samples: Tensor, *, silence: int | None = None) -> Tensor:
        """Samples [N] at 16 kHz to what the decoder looks at, [T, D].

        :param silence: samples of silence that are heard after them; to the ``longest`` (as Whisper was trained) when
            not given.
        """
        heard = self.longest if silence is None else min(-(-(len(samples) + silence) // _FRAME) * _FRAME, self.longest)
        mel = self.mel(F.pad(samples[: self.longest], (0, max(heard - len(samples), 0))))
        sound: Tensor = self.net.encoder(mel[None])[0]
        return sound

    def learnable(self) -> list[tuple[str, nn.Parameter]]:
        """What may learn, by name: the positions are sinusoids, and the table of tokens stays as it was fetched."""
        return [(n, p) for n, p in self.net.named_parameters() if "embed" not in n]

    # -- text ----------------------------------------------------------------------------------

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        if self._folder is None:
            return None
        return Tokenizer.from_file(str(self._folder / "tokenizer.json"))

    def spell(self, ids: Sequence[int]) -> str:
        """The text of a transcript."""
        if self._tokenizer is None:
            return "".join(chr(32 + i) for i in ids)
        text: str = self._tokenizer.decode(list(ids))
        return text

    def tokens(self, text: str) -> list[int]:
        """The inverse of ``spell``: the ids of a text, as they come at the beginning of a transcript."""
        if self._tokenizer is None:
            return [ord(c) - 32 for c in text if 32 <= ord(c) < 127]
        ids: list[int] = self._tokenizer.encode(f" {text.strip()}", add_special_tokens=False).ids
        return ids

    def vocabulary(self) -> list[str]:
        """What each text token spells; part of a character is a replacement character."""
        if self._tokenizer is None:
            return [chr(32 + i) for i in range(self.rules.end)]
        pieces: list[str] = self._tokenizer.decode_batch([[i] for i in range(self.rules.end)])
        return pieces


def _shape(facts: Mapping[str, Any], name: str) -> Whisper.Config:
    """The network of a ``config.json``."""
    if facts.get("model_type") != "whisper":
        raise WeightsError(f"{name!r} is a {facts.get('model_type')} and no Whisper. Name a Whisper.")
    return Whisper.Config(
        dim=facts["d_model"],
        encoder_layers=facts["encoder_layers"],
        decoder_layers=facts["decoder_layers"],
        num_heads=facts["encoder_attention_heads"],
        ffn_dim=facts["encoder_ffn_dim"],
        vocabulary_size=facts["vocab_size"],
        num_mel_bins=facts.get("num_mel_bins", 80),
        source_positions=facts.get("max_source_positions", 1500),
        target_positions=facts.get("max_target_positions", 448),
    )


def _random(shape: Whisper.Config) -> Whisper:
    """A network whose weights are large enough for what it writes to depend on what it hears."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Whisper = shape.build()
    for module in net.modules():
        if isinstance(module, nn.Linear):
            module.weight.data.mul_(6)
    net.decoder.embed_tokens.weight.data.mul_(5)
    net.decoder.embed_positions.weight.data.mul_(20)
    return net


def _adopt(net: Whisper, folder: Path) -> None:
    """Give a network its weights."""
    tensors = {n.removeprefix("model."): t for n, t in read_tensors(folder).items() if n != "proj_out.weight"}
    if missing := sorted(net.state_dict().keys() ^ tensors.keys()):
        raise WeightsError(f"{folder} has weights of another model: {missing[0]!r} does not fit. Fetch it again.")
    net.load_state_dict(tensors, assign=True)


def _read_rules(folder: Path) -> Rules:
    facts = read_config(folder, "generation_config.json")
    try:
        added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        special = {token["content"]: token["id"] for token in added}
        prompt = [facts["decoder_start_token_id"]]
        if facts.get("is_multilingual"):
            prompt += [facts["lang_to_id"]["<|en|>"], facts["task_to_id"]["transcribe"]]
        return Rules(
            prompt=(*prompt, facts["no_timestamps_token_id"]),
            end=facts["eos_token_id"],
            no_speech=next(special[name] for name in _NO_SPEECH if name in special),
            suppressed=tuple(facts["suppress_tokens"]),
            suppressed_first=tuple(facts["begin_suppress_tokens"]),
        )
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise WeightsError(
            f"{folder} does not say how its Whisper writes ({type(error).__name__}: {error}). Fetch it again."
        ) from None
