"""A tokenizer without a model around it, which is measured for what it can do."""

from typing import Any

from torch import nn

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.streams import Streams

__all__ = ["Alone"]


_NO_LM = "It has no language model."


class Alone:
    """A tokenizer alone; one that decodes, a codec, resynthesizes as a model does.

    :param tokenizer: of speech.
    """

    recipe = None
    speech_stream = "speech"

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer_alone = tokenizer
        self.speaks = hasattr(tokenizer, "decode")
        self.specs = {self.speech_stream: tokenizer.spec}

    def hear(self, audio: Audio) -> Audio:
        """The recording as the tokenizer takes it."""
        return audio.mono().to(self.tokenizer_alone.sample_rate)

    def encode(self, audio: Audio) -> Streams:
        return {self.speech_stream: self.tokenizer_alone.encode(self.hear(audio))}

    def decode(self, streams: Streams) -> Audio:
        """
        :raises ConfigError: it does not decode.
        """
        if not self.speaks:
            raise ConfigError(f"{type(self.tokenizer_alone).__name__} alone cannot speak. Choose a model, or a codec.")
        made: Audio = self.tokenizer_alone.decode(streams[self.speech_stream])
        return made

    def resynthesize(self, audio: Audio, *, voice: int | str | None = None) -> Audio:
        """
        :raises ConfigError: it does not decode, or a voice was asked for.
        """
        if voice is not None:
            raise ConfigError("A codec speaks in the voice that it heard. Leave out the voice.")
        return self.decode(self.encode(audio))

    def continue_(self, audio: Audio, **settings: Any) -> Any:
        """
        :raises ConfigError: always.
        """
        raise ConfigError(_NO_LM)

    def score(self, audio: Audio) -> Any:
        """
        :raises ConfigError: always.
        """
        raise ConfigError(_NO_LM)

    @property
    def parameters(self) -> dict[str, int]:
        """Of what hears and of what speaks."""
        whole = self.tokenizer_alone
        if not isinstance(whole, nn.Module):
            return {"tokenizer": 0, "lm": 0, "vocoder": 0}
        decoder = getattr(whole, "decoder", None)
        speaking = sum(p.numel() for p in decoder.parameters()) if isinstance(decoder, nn.Module) else 0
        return {"tokenizer": sum(p.numel() for p in whole.parameters()) - speaking, "lm": 0, "vocoder": speaking}
