"""Vocoders: streams to audio."""

from lalia.vocoders.base import LearnsAlone, LearnsFromStreams, Stage, Vocoder
from lalia.vocoders.chain import Chain
from lalia.vocoders.channels import Channels
from lalia.vocoders.codec_decoder import CodecDecoder
from lalia.vocoders.g2p import G2P
from lalia.vocoders.griffin_lim import GriffinLim
from lalia.vocoders.mel import MelVocoder
from lalia.vocoders.mel_hifigan import HifiGan
from lalia.vocoders.mel_vocos import MelVocos
from lalia.vocoders.source_vocos import SourceVocos
from lalia.vocoders.tacotron2 import Tacotron2
from lalia.vocoders.unit_fast_speech import UnitFastSpeech
from lalia.vocoders.unit_hifigan import UnitHifiGan
from lalia.vocoders.unit_vocos import UnitVocos
from lalia.vocoders.units import UnitVocoder
from lalia.vocoders.waveglow import WaveGlow

__all__ = [
    "G2P",
    "Chain",
    "Channels",
    "CodecDecoder",
    "GriffinLim",
    "HifiGan",
    "LearnsAlone",
    "LearnsFromStreams",
    "MelVocoder",
    "MelVocos",
    "SourceVocos",
    "Stage",
    "Tacotron2",
    "UnitFastSpeech",
    "UnitHifiGan",
    "UnitVocoder",
    "UnitVocos",
    "Vocoder",
    "WaveGlow",
]
