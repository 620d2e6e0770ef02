"""Text tokens: any Hugging Face tokenizer."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

import torch

from lalia.checkpoints import fetch
from lalia.config import Configurable
from lalia.errors import ConfigError, WeightsError
from lalia.streams import Discrete, StreamSpec, TokenSequence, pad_batch

__all__ = ["Text", "TextDecoder"]


class Text(Configurable):
    """Text to ids [B, 1, T] and back."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param name: known weights, a directory or a hub id.
        :param vocabulary_size: rows of the model's table (often more than the tokenizer has words).
        :param end: the id that ends a text.
        :param rate: tokens per second where the text keeps time with speech (Moshi's inner monologue).
        """

        name: str
        _: KW_ONLY
        vocabulary_size: int
        end: int | None = None
        rate: float | None = None

        @property
        def spec(self) -> StreamSpec:
            return StreamSpec(kind=Discrete(self.vocabulary_size, end=self.end), frame_rate=self.rate)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spec = config.spec

    @cached_property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer; read from disk at the first use."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(fetch(self.config.name))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise WeightsError(f"{self.config.name!r} has no tokenizer ({reason}). Name another.") from None
        if len(tokenizer) > self.config.vocabulary_size:
            raise ConfigError(
                f"{self.config.name!r} has {len(tokenizer)} tokens, but vocabulary_size is "
                f"{self.config.vocabulary_size}. Raise it."
            )
        return tokenizer

    def encode(self, text: str | Sequence[str]) -> TokenSequence:
        """Ids without special tokens: the stream's end is the layout's to add."""
        texts = [text] if isinstance(text, str) else list(text)
        rows = [torch.tensor(self.tokenizer.encode(t, add_special_tokens=False), dtype=torch.long) for t in texts]
        return pad_batch([TokenSequence(r[None, None], torch.tensor([len(r)])) for r in rows])

    def decode(self, tokens: TokenSequence) -> list[str]:
        """The text of each row."""
        return [
            self.tokenizer.decode(tokens.row(b).values[0, 0].tolist(), skip_special_tokens=True)
            for b in range(len(tokens))
        ]

    def stream(self) -> "TextDecoder":
        """Decodes tokens as they come."""
        return TextDecoder(self.tokenizer)


class TextDecoder:
    """Ids one after another to text, holding back what is not a whole character yet."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._given = ""

    def push(self, ids: Sequence[int], *, final: bool = False) -> str:
        """The text that these ids complete."""
        self._ids += ids
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        # An unfinished byte sequence decodes to U+FFFD; the rest of the character may come yet.
        if text.endswith("\N{REPLACEMENT CHARACTER}") and not final:
            return ""
        new = text[len(self._given) :]
        self._given = text
        return new
