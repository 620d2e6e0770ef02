"""Text tokens: any Hugging Face tokenizer, or a unigram model of SentencePiece."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lalia.checkpoints import KNOWN, fetch
from lalia.config import Configurable
from lalia.errors import ConfigError, WeightsError
from lalia.streams import Discrete, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers import sentencepiece
from lalia.tokenizers.base import identity_of
from lalia.tokenizers.fast import FastTokenizer

__all__ = ["BYTES", "Text", "TextDecoder"]

BYTES = "bytes"
"""The name of the tokenizer that needs no files: ids 0 to 255 are the bytes of UTF-8."""

_HUGGING_FACE = ("tokenizer.json", "tokenizer_config.json")
"""A folder with one of these has a tokenizer that transformers opens, whatever it was made of."""

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a sequence of bytes that is no whole character decodes to."""


class Text(Configurable):
    """Text to ids [B, 1, T] and back."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param name: known weights, a directory or a hub id, of a Hugging Face tokenizer or of SentencePiece's
            ``.model``; ``bytes`` for UTF-8 as it is.
        :param vocabulary_size: rows of the model's table (often more than the tokenizer has words).
        :param end: the id that ends a text.
        :param rate: tokens per second where the text keeps time with speech (Moshi's inner monologue).
        :param pad: the id of a frame in which no word begins or goes on, where it keeps time.
        :param end_of_pad: the id of the frame before a word, where it keeps time.
        """

        name: str
        _: KW_ONLY
        vocabulary_size: int
        end: int | None = None
        rate: float | None = None
        pad: int | None = None
        end_of_pad: int | None = None

        def tiny(self) -> "Text.Config":
            """Bytes, which need no download."""
            return replace(
                self,
                name=BYTES,
                vocabulary_size=260,
                end=None if self.end is None else 256,
                pad=None if self.pad is None else 257,
                end_of_pad=None if self.end_of_pad is None else 258,
            )

        @property
        def spec(self) -> StreamSpec:
            return StreamSpec(kind=Discrete(self.vocabulary_size, end=self.end), frame_rate=self.rate)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spec = config.spec
        # What a name stands for may change on a hub; a table of another size would be noticed.
        self.identity = identity_of(config, {})

    @cached_property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer; read from disk at the first use.

        :raises WeightsError: there is none by that name.
        :raises ConfigError: it has more tokens than ``vocabulary_size``.
        """
        name = self.config.name
        if name == BYTES:
            return _Bytes()
        # A folder need not hold a model too.
        path = Path(name).expanduser() if Path(name).expanduser().is_dir() else fetch(name)
        try:
            tokenizer = _open(path, known=name in KNOWN)
        except WeightsError:
            raise
        except Exception as error:  # noqa: BLE001  what a damaged file can raise is not part of any interface
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise WeightsError(f"{name!r} has no tokenizer that can be read ({reason}). Name another.") from None
        if len(tokenizer) > self.config.vocabulary_size:
            raise ConfigError(
                f"{name!r} has {len(tokenizer)} tokens, but vocabulary_size is {self.config.vocabulary_size}. Raise it."
            )
        return tokenizer

    def encode(self, text: str | Sequence[str], *, special: bool = False) -> TokenSequence:
        """Ids of one text or of several; nothing is added, for the stream's end is the layout's to add.

        :param special: read names of special tokens (``<|endoftext|>``) as these, in a template for instance. In what
            a user says they are letters like any other.
        """
        texts = [text] if isinstance(text, str) else list(text)
        options = {"add_special_tokens": False, "split_special_tokens": not special}
        rows = [torch.tensor(self.tokenizer.encode(t, **options), dtype=torch.long) for t in texts]
        return pad_batch([TokenSequence(r[None, None], torch.tensor([len(r)])) for r in rows])

    def encode_words(self, words: Sequence[str]) -> list[torch.Tensor]:
        """The ids [t] of each word of a text, spelled as it is within the text, with the space before it."""
        spelled = (f" {word.strip()}" if i else word.strip() for i, word in enumerate(words))
        return [self.encode(word).values[0, 0] for word in spelled]

    def decode(self, tokens: TokenSequence) -> list[str]:
        """The text of each row, without special tokens."""
        return [_decode(self.tokenizer, tokens.row(b).values[0, 0].tolist()) for b in range(len(tokens))]

    def stream(self) -> "TextDecoder":
        """Decodes tokens as they come."""
        return TextDecoder(self.tokenizer)


def _open(folder: Path, *, known: bool) -> Any:
    if not any((folder / name).is_file() for name in _HUGGING_FACE) and (alone := sorted(folder.glob("*.model"))):
        return sentencepiece.read(alone[0])
    if known:
        return FastTokenizer(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


class _Bytes:
    """UTF-8 as a tokenizer."""

    all_special_ids = tuple(range(256, 260))

    def __len__(self) -> int:
        return 260

    def encode(self, text: str, **_: Any) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")


class TextDecoder:
    """Ids one after another to text, holding back what is not a whole character yet.

    The pieces together are what ``Text.decode`` gives for all ids. Each takes the same time, however long the text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._silent, self._size = frozenset(tokenizer.all_special_ids), len(tokenizer)
        self._ids: list[int] = []
        """Those of the last piece, without which the next would be decoded as the beginning of a text, and the new."""
        self._old = 0
        """How many of them are of the last piece."""
        self._given = ""
        """What was given of the new ones already."""

    def push(self, ids: Sequence[int], *, final: bool = False) -> str:
        """The text that these ids complete.

        :param final: no more follow: give what is held back, too.
        """
        # Those that decode to nothing are dropped at once: a pause may have thousands.
        self._ids += [i for i in ids if i not in self._silent and i < self._size]
        before = _decode(self._tokenizer, self._ids[: self._old])
        text = _decode(self._tokenizer, self._ids)[len(before) :]
        whole = text if final else text.rstrip(_UNFINISHED)
        new, self._given = whole[len(self._given) :], whole
        if whole == text and whole:
            self._ids, self._old, self._given = self._ids[self._old :], len(self._ids) - self._old, ""
        return new


def _decode(tokenizer: Any, ids: list[int]) -> str:
    # Cleaning up would change what was given already when a comma follows it.
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
