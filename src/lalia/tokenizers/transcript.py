"""A transcript: what a recogniser writes, as a text LM's own tokens; what a cascade hears."""

from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.streams import StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers.base import Fetched, identity_of
from lalia.tokenizers.soft_text import Heard, SoftText
from lalia.tokenizers.text import Text

__all__ = ["Transcript"]


class Transcript(Configurable, Fetched, nn.Module):
    """Speech as the one text that is likeliest, ids [B, 1, T]: of doubts, of the voice and of how it speaks nothing is
    left. It is what stands between the recogniser and the language model of a cascade.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param text: the tokenizer of the LM.
        :param recognizer: how the sound is read; only its words are taken.
        """

        text: Text.Config
        _: KW_ONLY
        recognizer: SoftText.Config = field(default_factory=lambda: SoftText.Config(context="full", longest=28.0))

        @property
        def spec(self) -> StreamSpec:
            return self.text.spec

        @property
        def sample_rate(self) -> int:
            """Of the sound that is read, in Hz."""
            return 16000

        def tiny(self) -> "Transcript.Config":
            return replace(self, text=self.text.tiny(), recognizer=self.recognizer.tiny())

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.spec, self.sample_rate = config, config.spec, config.sample_rate
        self.recognizer: SoftText = config.recognizer.build()
        self.text: Text = config.text.build()

    @property
    def identity(self) -> str:
        """SHA-256 over the configuration and the recogniser's weights."""
        return identity_of(self.config, {}, recognizer=self.recognizer.identity)

    def encode(self, audio: Audio, state: Any = None, *, final: bool = False) -> TokenSequence:
        """:param audio: [B, C, N], whole: a cascade reads when the user has ended."""
        assert state is None, "a transcript is made of whole recordings"
        return pad_batch([self.tokens_of(heard) for heard in self.hear(audio)])

    def hear(self, audio: Audio) -> list[Heard]:
        """What each row says, with what tells whether it was understood."""
        return self.recognizer.hear(audio)

    def tokens_of(self, heard: Heard) -> TokenSequence:
        """The tokens [1, 1, T] of what was heard."""
        return self.text.encode(heard.text) if heard.text else TokenSequence(_NOTHING, torch.tensor([0]))

    def transcribe(self, audio: Audio, **options: Any) -> list[str]:
        """The text of each row; options as for ``SoftText.transcribe``."""
        return self.recognizer.transcribe(audio, **options)


_NOTHING = torch.zeros((1, 1, 0), dtype=torch.long)
