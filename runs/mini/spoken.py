"""Have the questions of ``lalia eval`` read out by kokoro-onnx and flite: ``spoken.py KOKORO.onnx VOICES``.

``VOICES`` is the folder ``package/voices`` of kokoro-js 1.2.1 (npm). The texts are those of ``texts.json`` in lalia's
benchmarks, and the sounds go beside it, with a manifest. They are read in voices in which mini hears nothing while it
trains.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lalia.audio import Audio
from lalia.data import Manifest, Utterance
from lalia.data.synthesis import Flite, Kokoro, Synthesizer
from lalia.errors import LaliaError
from lalia.evaluation.benchmarks.bundled import HOME, TEXTS

RATE = 16_000
ASKING = ("af_nova", "slt", "am_adam", "rms", "bf_emma", "awb", "bm_george", "kal16")
DELIVERIES = {
    "neutral": ("af_nova", 1.0),
    "slow": ("af_nova", 0.7),
    "fast": ("af_nova", 1.3),
    "whispered": ("af_nicole", 1.0),
}
FRENCH = "ff_siwis"


class Line(NamedTuple):
    """What is to be read out, and how."""

    id: str
    text: str
    voice: str
    speed: float = 1.0
    language: str = "en"


def lines() -> Iterator[Line]:
    """All of them."""
    for i, question in enumerate(TEXTS["questions"]):
        yield Line(f"question-{i + 1:02d}", question["text"], ASKING[i % len(ASKING)])
    for i, text in enumerate(TEXTS["tone"]):
        for name, (voice, speed) in DELIVERIES.items():
            yield Line(f"tone-{i + 1}-{name}", text, voice, speed)
    for i, text in enumerate(TEXTS["french"]):
        yield Line(f"french-{i + 1}", text, FRENCH, language="fr")


def open_kokoro(model: str, voices: str) -> Kokoro:
    """Kokoro with all voices of the folder."""
    styles = {p.stem: np.fromfile(p, "<f4").reshape(510, 1, 256) for p in Path(voices).glob("*.bin")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "voices.npz")
        np.savez(path, **styles)  # type: ignore[arg-type]  # its stubs take every keyword for allow_pickle
        return Kokoro(model, path)


def main(model: str, voices: str) -> None:
    """Write all of them."""
    engines: tuple[Synthesizer, ...] = (open_kokoro(model, voices), Flite())
    spoken = []
    for line in lines():
        engine = next(e for e in engines if line.voice in e.voices)
        path = HOME / f"{line.id}.opus"
        engine.speak(line.text, line.voice, line.speed).audio.mono().to(RATE).save(path)
        told = {"text": line.text, "speaker": line.voice, "language": line.language}
        spoken.append(Utterance(line.id, path, duration=round(Audio.load(path).seconds, 4), **told))
    Manifest(spoken).save(HOME / "manifest.jsonl")
    size = sum(u.path.stat().st_size for u in spoken)
    sys.stderr.write(f"{HOME}: {len(spoken)} recordings, {size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except LaliaError as error:
        sys.exit(f"error: {error}")
