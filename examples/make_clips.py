"""How the clips here were made: ``python examples/make_clips.py KOKORO``, with kokoro-onnx and flite installed.

``KOKORO`` is the folder with model.onnx and voices.npz that ``runs/mini-gslm.sh materials`` brings.
"""

import sys
from pathlib import Path

import torch

from lalia.audio import Audio
from lalia.data.synthesis import Flite, Kokoro, Synthesizer

RATE = 16_000
HERE = Path(__file__).parent

PROMPT = (
    "Early in the morning, while the harbour was still dark, the old captain came down to his ship, "
    "looked up at the sky, and said"
)
QUESTION = "Can you tell me, what is the capital of France?"
DIALOGUE = (
    ("Did you hear the storm last night?", 0, 0.3),
    ("I did. It kept me awake for hours.", 1, 0.25),
    ("Me too. I think it took the roof off the old barn.", 0, 0.2),
    ("Oh no. Let us go and see.", 1, -0.15),
)
"""What is said, on which channel, and after how long a pause in seconds; before 0 it is an interruption."""


def converse(voices: tuple[tuple[Synthesizer, str], ...]) -> Audio:
    """The dialogue: each voice on a channel of its own, silent while it listens."""
    turns, end = [], 0
    for text, channel, pause in DIALOGUE:
        synthesizer, voice = voices[channel]
        samples = synthesizer.speak(text, voice).audio.to(RATE).samples[0, 0]
        start = end + round(pause * RATE)
        turns.append((channel, start, samples))
        end = start + len(samples)
    mixed = torch.zeros(len(voices), end + round(0.3 * RATE))
    for channel, start, samples in turns:
        mixed[channel, start : start + len(samples)] += samples
    return Audio(mixed, RATE)


def main() -> None:
    """Write all of them."""
    if len(sys.argv) != 2:
        sys.exit("usage: make_clips.py KOKORO")
    home = Path(sys.argv[1])
    kokoro, flite = Kokoro(home / "model.onnx", home / "voices.npz"), Flite()
    kokoro.speak(PROMPT, "af_heart").audio.to(RATE).save(HERE / "prompt.flac")
    kokoro.speak(QUESTION, "bm_george").audio.to(RATE).save(HERE / "question.flac")
    converse(((kokoro, "bf_emma"), (flite, "rms"))).save(HERE / "two-speakers.flac")


if __name__ == "__main__":
    main()
