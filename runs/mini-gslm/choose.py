"""Which units to take: layer, rate and number, by what Whisper still understands of them.

For each choice, k-means is fitted on the training speakers of LibriSpeech; a small network learns in a few hundred
steps to predict Whisper's log-mel spectrum from the units; and Whisper-tiny.en reads what it predicts for speakers
whom it never heard. Its reading of the true spectrum is the reference. Short and coarse: it is for choosing.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from manifests import librispeech
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.checkpoints import fetch
from lalia.cli.console import tell
from lalia.errors import LaliaError
from lalia.evaluation.text import WhisperEnglish, word_edits
from lalia.files import atomic_write
from lalia.nn.convnext import ConvNeXtBlock
from lalia.tokenizers import SSLUnits

CHOICES = ("1:1:500", "2:1:500", "2:1:1000", "2:2:500", "2:2:1000", "3:1:500", "3:1:1000", "4:1:500", "4:2:1000")
"""Layer, frames averaged (2: 25 Hz), units."""


class Teller(nn.Module):
    """Units [B, T] to log-mel frames [B, 80, 2 * pool * T]: Whisper's spectrum has 100 frames a second."""

    def __init__(self, clusters: int, pool: int, dim: int = 192) -> None:
        super().__init__()
        self.each = 2 * pool
        self.embedding = nn.Embedding(clusters, dim)
        self.place = nn.Parameter(torch.zeros(self.each, dim))
        self.blocks = nn.Sequential(*(ConvNeXtBlock(dim, 2 * dim, scale=0.25) for _ in range(5)))
        self.out = nn.Linear(dim, 80)

    def forward(self, units: Tensor) -> Tensor:
        x = (self.embedding(units)[:, :, None] + self.place).flatten(1, 2)
        return self.out(self.blocks(x)).transpose(1, 2)


class Judge:
    """Whisper-tiny.en on spectra."""

    def __init__(self) -> None:
        from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizerFast
        from transformers.utils import logging

        logging.set_verbosity_error()
        folder = fetch("whisper-tiny.en")
        self.extractor = WhisperFeatureExtractor.from_pretrained(folder)
        self.tokenizer = WhisperTokenizerFast.from_pretrained(folder)
        self.model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
        self.normalize = WhisperEnglish()

    def spectrum(self, audio: Audio) -> Tensor:
        """[80, T] of what is there, without the padding to a window."""
        x = audio.samples[0, 0].numpy()
        features = self.extractor(x, sampling_rate=16000, return_tensors="pt").input_features[0]
        return features[:, : len(x) // 160]

    @torch.inference_mode()
    def read(self, spectrum: Tensor) -> str:
        padded = F.pad(spectrum, (0, 3000 - spectrum.shape[1]), value=float(spectrum.min()))
        ids = self.model.generate(padded[None], max_new_tokens=200)
        return self.normalize(self.tokenizer.decode(ids[0], skip_special_tokens=True))


def train(
    teller: Teller, units: Sequence[Tensor], spectra: Sequence[Tensor], *, steps: int, seconds: float = 3.0
) -> float:
    """The mean error of the last tenth of the steps, in log-mel units."""
    optimizer = torch.optim.AdamW(teller.parameters(), lr=2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    frames, last = round(seconds * 100 / teller.each), 0.0
    for step in range(steps):
        rows, targets = [], []
        for i in random.choices(range(len(units)), k=16):
            start = random.randint(0, max(len(units[i]) - frames, 0))
            rows.append(F.pad(units[i][start : start + frames], (0, max(frames - len(units[i]), 0))))
            target = spectra[i][:, start * teller.each : (start + frames) * teller.each]
            targets.append(F.pad(target, (0, frames * teller.each - target.shape[1])))
        with torch.autocast("cpu", torch.bfloat16):
            made = teller(torch.stack(rows)).float()
        loss = (made - torch.stack(targets)).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step >= steps * 9 // 10:
            last += loss.item() / (steps - steps * 9 // 10)
    return last


def measure(
    choice: str, judge: Judge, data: dict[str, list[Audio]], spectra: dict[str, list[Tensor]], steps: int
) -> dict[str, object]:
    """The errors that one choice adds."""
    layer, pool, clusters = (int(x) for x in choice.split(":"))
    torch.manual_seed(0)
    random.seed(0)
    started = time.monotonic()
    config = SSLUnits.Config("whisper-tiny.en", layer=layer, clusters=clusters, pool=pool, standardize=True)
    tokenizer: SSLUnits = config.build()
    tokenizer.fit(data["train"], passes=8)
    units = {part: [tokenizer.encode(a).values[0, 0] for a in audios] for part, audios in data.items()}
    teller = Teller(clusters, pool)
    error = train(teller, units["train"], spectra["train"], steps=steps)
    wrong = words = runs = 0
    teller.eval()
    for u, true in zip(units["test"], spectra["test"], strict=True):
        with torch.inference_mode():
            made = teller(u[None])[0, :, : true.shape[1]]
        edits = word_edits(judge.read(true), judge.read(made))
        wrong, words = wrong + edits.errors, words + edits.length
        runs += len(torch.unique_consecutive(u))
    length = sum(a.seconds for a in data["test"])
    result = {
        "layer": layer,
        "frame_rate": 50 / pool,
        "clusters": clusters,
        "units_per_second": round(runs / length, 1),
        "spectrum_error": round(error, 4),
        "wer": round(100 * wrong / words, 1),
        "words": words,
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    tell(json.dumps(result))
    return result


def main() -> None:
    """Read the command line, measure every choice, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--librispeech", type=Path, required=True, help="as for mini-gslm.sh")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON; choices that it has are not repeated")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--most", type=int, help="utterances of each part")
    parser.add_argument("choices", nargs="*", default=CHOICES, metavar="LAYER:POOL:UNITS")
    given = parser.parse_args()
    judge = Judge()
    parts = librispeech(given.librispeech, given.most)
    data = {name: [u.load(sample_rate=16000) for u in parts[name]] for name in ("train", "test")}
    spectra = {n: [judge.spectrum(a) for a in audios] for n, audios in data.items()}
    done = json.loads(given.output.read_text()) if given.output.exists() else {}
    for choice in given.choices:
        if choice not in done:
            done[choice] = measure(choice, judge, data, spectra, given.steps)
            with atomic_write(given.output) as path:
                path.write_text(json.dumps(done, indent=2) + "\n")
    for choice, result in sorted(done.items(), key=lambda item: item[1]["wer"]):
        tell(f"{choice}: " + ", ".join(f"{k} {v}" for k, v in result.items()))


if __name__ == "__main__":
    try:
        main()
    except LaliaError as error:
        sys.exit(f"error: {error}")
