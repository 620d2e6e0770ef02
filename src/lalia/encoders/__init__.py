"""Encoders: audio to continuous features."""

from lalia.encoders.pitch import PitchTracker
from lalia.encoders.speech import SpeechEncoder
from lalia.encoders.windows import Windows, WindowState

__all__ = ["PitchTracker", "SpeechEncoder", "WindowState", "Windows"]
