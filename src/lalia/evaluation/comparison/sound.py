"""Sound inside of a page: short, mono, Opus, as a data URL."""

import base64
import tempfile
from pathlib import Path

from lalia.audio import Audio

__all__ = ["data_url"]

_RATES = (16_000, 24_000)


def data_url(path: Path, *, start: float = 0.0, seconds: float = 8.0) -> str | None:
    """The beginning of a recording, or what follows from ``start`` on; None where there is no file.

    :param start: in seconds.
    :param seconds: at most this much.
    :raises AudioError: it is no sound.
    """
    if not path.is_file():
        return None
    audio = Audio.load(path, mono=True, start=start, seconds=seconds, check=False)
    # Opus has five rates, of which the widest bring nothing that these models make.
    audio = audio.to(next((r for r in _RATES if audio.sample_rate <= r), _RATES[-1]))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sound.opus"
        audio.save(file)
        return "data:audio/ogg;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
