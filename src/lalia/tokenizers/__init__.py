"""Tokenizers: audio and text to discrete tokens."""

from lalia.tokenizers.base import SpeechTokenizer, identity_of
from lalia.tokenizers.codec import Codec
from lalia.tokenizers.inner_text import align_text
from lalia.tokenizers.kmeans import assign, fit_kmeans
from lalia.tokenizers.ssl_units import SSLUnits
from lalia.tokenizers.text import Text

__all__ = ["Codec", "SSLUnits", "SpeechTokenizer", "Text", "align_text", "assign", "fit_kmeans", "identity_of"]
