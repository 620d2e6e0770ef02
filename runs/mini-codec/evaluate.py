"""What of the words survives a codec, by how many of its codebooks are used, on speakers whom it never heard."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from lalia.audio import Audio
from lalia.data import discover
from lalia.evaluation import Whisper, WhisperEnglish, evaluate_resynthesis
from lalia.model import load_tokenizer
from lalia.nn.spectral import LogMel
from lalia.tokenizers import Codec

_LONGEST = 15.0
"""Seconds of an utterance that are judged."""


class Resynthesizer:
    """A codec of which the first K codebooks are used."""

    def __init__(self, codec: Codec, num_codebooks: int) -> None:
        self.codec, self.num_codebooks = codec, num_codebooks

    def resynthesize(self, audio: Audio) -> Audio:
        codes = self.codec.encode(audio)
        return self.codec.decode(replace(codes, values=codes.values[:, : self.num_codebooks]))


def mel_distance(codec: Resynthesizer, sounds: list[Audio]) -> float:
    """Mean difference of log-mel spectra (80 bands, 64 ms), in nats."""
    mel = LogMel.Config(codec.codec.sample_rate).build()
    distances = []
    for sound in sounds:
        made = codec.resynthesize(sound).samples
        distances.append(float((mel(made[..., : sound.samples.shape[-1]]) - mel(sound.samples)).abs().mean()))
    return sum(distances) / len(distances)


def main(source: str, data: str, out: str) -> None:
    """Measure a codec on the speakers that training held out, and write what was found."""
    codec = load_tokenizer(source)
    held = discover([Path(data)]).split()
    utterances = [replace(u, duration=min(u.duration, _LONGEST)) for part in ("dev", "test") for u in held[part]]
    judge, second = Whisper("whisper-base"), Whisper("whisper-tiny.en")
    sounds = [u.load(sample_rate=codec.sample_rate) for u in utterances]
    result = {}
    for books in (codec.config.books, 8, 4):
        used = Resynthesizer(codec, books)
        made = evaluate_resynthesis(
            lambda _, audio, used=used: used.resynthesize(audio),
            utterances,
            judge=judge,
            second=second,
            normalizer=WhisperEnglish(),
        )
        made["bits_per_second"] = codec.spec.frame_rate * books * (codec.config.quantizer.num_codes - 1).bit_length()
        made["mel_distance"] = mel_distance(used, sounds)
        result[str(books)] = made
        rates = made["summary"]["all"]["second"]["wer"]
        told = {"books": books, **{k: made[k] for k in ("bits_per_second", "mel_distance")}, "wer": rates}
        sys.stdout.write(json.dumps(told) + "\n")
    Path(out).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
