"""Encoders: audio to continuous features."""

from lalia.encoders.speech import SpeechEncoder
from lalia.encoders.windows import Windows, WindowState

__all__ = ["SpeechEncoder", "WindowState", "Windows"]
