"""Real-time factor of vocoders: lalia's on units beside transformers' SpeechT5HifiGan on a mel spectrogram.

All have random weights, which cost what trained ones cost, and make 16 kHz. Streaming is in chunks of units,
of which lalia makes exactly the sound that it makes of all at once. The peer has no streaming: it makes the
sound of each chunk alone, which is less work, and does not join without seams.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch

from benchmarks.limits import count_operations
from benchmarks.llama import random_units
from benchmarks.worker import Gate
from lalia.recipes.mini_gslm import mini_gslm
from lalia.streams import TokenSequence
from lalia.vocoders import UnitHifiGan, Vocoder

__all__ = ["lalia", "peer"]

_FRAMES_PER_UNIT = 5


def _vocoder(name: str) -> Vocoder:
    recipe = mini_gslm()
    assert recipe.vocoder is not None
    if name == "vocos":
        built: Vocoder = recipe.vocoder.build(recipe.specs)
        return built.eval()
    hifigan: UnitHifiGan = UnitHifiGan.Config("units", predict_durations=True).build(recipe.specs)
    return hifigan.eval().fuse()


def lalia(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """lalia's side."""
    vocoder = _vocoder(options["vocoder"])
    rate, chunk = 50, options["chunk_seconds"]
    count = round(options["seconds"] * rate / _FRAMES_PER_UNIT)
    units = TokenSequence(
        random_units(1, 1, count), torch.tensor([count]), durations=torch.full((1, count), _FRAMES_PER_UNIT)
    )

    def whole() -> int:
        return vocoder.decode({"units": units}).samples.shape[-1]

    def streaming() -> int:
        size = max(round(chunk * rate / _FRAMES_PER_UNIT), 1)
        state, made = vocoder.init_state(1), 0
        for start in range(0, count, size):
            final = start + size >= count
            made += vocoder.decode({"units": units.cut(start, start + size)}, state, final=final).samples.shape[-1]
        return made

    work: Callable[[], int] = streaming if chunk else whole
    made = work()
    assert made == round(options["seconds"] * vocoder.sample_rate), made
    for _ in gate.rounds(amount=options["seconds"]):
        work()
    return {"operations": count_operations(whole)}


def peer(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """The side of transformers: 62.5 frames a second, 80 mel bins."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    config = SpeechT5HifiGanConfig()
    vocoder = SpeechT5HifiGan(config).eval()
    rate = config.sampling_rate / 256
    mel = torch.randn(round(options["seconds"] * rate), config.model_in_dim, generator=torch.Generator().manual_seed(0))
    size = options["chunk_seconds"] * rate if options["chunk_seconds"] else len(mel)
    edges = [round(i * size) for i in range(round(len(mel) / size) + 1)]

    def work() -> int:
        with torch.inference_mode():
            return sum(len(vocoder(mel[a:b])) for a, b in pairwise(edges))

    made = work()
    assert made == 256 * len(mel), made
    for _ in gate.rounds(amount=options["seconds"]):
        work()
    return {}
