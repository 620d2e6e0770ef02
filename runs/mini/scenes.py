"""Have what is said in scenes of ``lalia eval`` read out: ``scenes.py KOKORO.onnx VOICES.npz [ID]...``.

The texts are those of ``texts.json`` of lalia's scenes, and the sounds go beside it, with a manifest; ``pauses.json``
says where a bundled question can be parted: between two words, as Whisper-base hears them, where it is most quiet.
Users speak in the voices that ask the bundled questions, in which mini hears nothing while it trains; others, who talk
in the background, in further ones of Kokoro. With IDs, only these clips are made anew.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lalia.audio import Audio
from lalia.data import Manifest, Utterance
from lalia.data.synthesis import Flite, Kokoro, Synthesizer
from lalia.errors import LaliaError
from lalia.evaluation.asr import Whisper
from lalia.evaluation.benchmarks.bundled import questions
from lalia.evaluation.benchmarks.scene_clips import SCENE_CLIPS as HOME
from lalia.evaluation.benchmarks.scene_clips import SCENE_TEXTS as TEXTS
from lalia.evaluation.energy import mean_power, speech_span

RATE = 16_000
NEAR = 0.12
"""Seconds to either side of where two words meet in which it is looked for quiet."""


class Line(NamedTuple):
    """What is to be read out, and by whom."""

    id: str
    text: str
    voice: str


def lines() -> Iterator[Line]:
    """All of them: each user says three backchannels, two stops, two questions, two asides and one thing more."""
    users, others = TEXTS["users"], TEXTS["others"]
    for kind, times in (("backchannel", 3), ("stop", 2), ("again", 2), ("more", 1), ("aside", 2)):
        texts = [t["text"] if isinstance(t, dict) else t for t in TEXTS[kind]]
        for i in range(times * len(users)):
            # Another text each time that it is somebody's turn.
            text = texts[(i + i // len(users)) % len(texts)]
            yield Line(f"{kind}-{i + 1:02d}", text, users[i % len(users)])
    for i, voice in enumerate(others):
        yield Line(f"other-{i + 1:02d}", TEXTS["aside"][(5 * i + 3) % len(TEXTS["aside"])], voice)


def pauses() -> dict[str, dict[str, float | str]]:
    """Where each bundled question is parted: between two words, nearest to its middle."""
    whisper = Whisper("whisper-base")
    found: dict[str, dict[str, float | str]] = {}
    for question in questions():
        sound = question.load()
        power = mean_power(sound)
        start, end = speech_span(power)
        words = whisper.align(sound, question.text)
        middle = (start + end) / 2 / sound.sample_rate
        k = min(range(1, len(words)), key=lambda i: abs(words[i].start - middle))
        low, high = (round((words[k].start + x) * sound.sample_rate) for x in (-NEAR, NEAR))
        at = low + int(power[low:high].argmin())
        before = " ".join(w.text for w in words[:k])
        found[question.id] = {"at": round(at / sound.sample_rate, 3), "before": before}
    return found


def main(model: str, voices: str, *ids: str) -> None:
    """Write all of them, or some anew."""
    engines: tuple[Synthesizer, ...] = (Kokoro(model, voices), Flite())
    spoken = []
    for line in lines():
        engine = next(e for e in engines if line.voice in e.voices)
        path = Path(HOME, f"{line.id}.opus")
        if not ids or line.id in ids:
            engine.speak(line.text, line.voice).audio.mono().to(RATE).save(path)
        told = {"text": line.text, "speaker": line.voice, "language": "en"}
        spoken.append(Utterance(line.id, path, duration=round(Audio.load(path).seconds, 4), **told))
    Manifest(spoken).save(HOME / "manifest.jsonl")
    if not ids:
        parted = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in pauses().items())
        (HOME / "pauses.json").write_text(f"{{\n{parted}\n}}\n", "utf-8")
    size = sum(u.path.stat().st_size for u in spoken)
    sys.stderr.write(f"{HOME}: {len(spoken)} recordings, {size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except LaliaError as error:
        sys.exit(f"error: {error}")
