"""Audio: samples with their sample rate, from any file and at any rate.

Whatever is read from outside is checked here, once, so that nothing behind this package has to.
"""

from lalia.audio.reading import read_blocks
from lalia.audio.value import SHORTEST_SECONDS, SILENCE_DBFS, Audio, AudioLike

__all__ = ["SHORTEST_SECONDS", "SILENCE_DBFS", "Audio", "AudioLike", "read_blocks"]
