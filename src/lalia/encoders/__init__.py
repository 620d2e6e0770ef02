"""Encoders: audio to continuous features."""

from lalia.encoders.speech import SpeechEncoder
from lalia.encoders.windows import Windows

__all__ = ["SpeechEncoder", "Windows"]
