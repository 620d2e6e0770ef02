"""Tokenizers: audio and text to discrete tokens and features."""

from lalia.nn.frame_net import FrameNet
from lalia.nn.fsq import FSQ
from lalia.nn.quantize import ResidualVQ
from lalia.nn.quantize_parts import GroupedResidualVQ, SplitResidualVQ
from lalia.nn.seanet import SEANet
from lalia.tokenizers.base import Learns, Levelled, SpeechTokenizer, identity_of
from lalia.tokenizers.codec import Codec
from lalia.tokenizers.dac import DAC
from lalia.tokenizers.durations import Durations
from lalia.tokenizers.encodec import EnCodec
from lalia.tokenizers.features import Features, Mel
from lalia.tokenizers.inner_text import align_text
from lalia.tokenizers.kmeans import assign, fit_kmeans
from lalia.tokenizers.letters import Letters
from lalia.tokenizers.manner import Manner
from lalia.tokenizers.mimi import Mimi
from lalia.tokenizers.phones import Phones
from lalia.tokenizers.pitch_vq import PitchVQ
from lalia.tokenizers.prosody import Energy, Pitch, Style
from lalia.tokenizers.runs import durations_of, frames_of, pool_by_runs
from lalia.tokenizers.snac import SNAC
from lalia.tokenizers.soft_text import Heard, SoftText
from lalia.tokenizers.ssl_units import SSLUnits
from lalia.tokenizers.states import States
from lalia.tokenizers.text import Text
from lalia.tokenizers.transcript import Transcript

__all__ = [
    "DAC",
    "FSQ",
    "SNAC",
    "Codec",
    "Durations",
    "EnCodec",
    "Energy",
    "Features",
    "FrameNet",
    "GroupedResidualVQ",
    "Heard",
    "Learns",
    "Letters",
    "Levelled",
    "Manner",
    "Mel",
    "Mimi",
    "Phones",
    "Pitch",
    "PitchVQ",
    "ResidualVQ",
    "SEANet",
    "SSLUnits",
    "SoftText",
    "SpeechTokenizer",
    "SplitResidualVQ",
    "States",
    "Style",
    "Text",
    "Transcript",
    "align_text",
    "assign",
    "durations_of",
    "fit_kmeans",
    "frames_of",
    "identity_of",
    "pool_by_runs",
]
