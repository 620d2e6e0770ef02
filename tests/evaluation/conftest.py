import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lalia.audio import Audio
from lalia.data import Manifest, Utterance, Word
from lalia.errors import DataError

SPEECH = Path(__file__).parents[2].parent / "shared/data/librispeech-mini"
RATE = 16_000


@pytest.fixture
def recordings() -> list[Path]:
    """Real people reading, one file each."""
    files = sorted(SPEECH.glob("*.flac"))
    if not files:
        pytest.skip("needs recorded speech")
    return files


def tones(notes: Sequence[float], *, seconds: float = 0.3, gap: float = 0.05) -> tuple[Audio, tuple[Word, ...]]:
    """ "Words" that are tones with short silences between them, and where they are."""
    t = np.arange(round(seconds * RATE)) / RATE
    pieces, words, at = [], [], 0.0
    for note in notes:
        pieces += [0.3 * np.sin(2 * np.pi * note * t), np.zeros(round(gap * RATE))]
        words.append(Word(f"{note:g}", at, at + seconds))
        at += seconds + gap
    return Audio(np.concatenate(pieces).astype(np.float32), RATE), tuple(words)


class Listens:
    """A recogniser of `tones`: the words are the notes, by the strongest frequency of each."""

    name, version = "listens", "1"

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, recordings: Sequence[Audio]) -> list[str]:
        self.asked += len(recordings)
        return [" ".join(self.notes(audio)) for audio in recordings]

    def notes(self, audio: Audio) -> list[str]:
        x, step = audio.samples[0, 0].numpy(), round(0.35 * audio.sample_rate)
        heard = []
        for start in range(0, len(x) - step // 2, step):
            spectrum = np.abs(np.fft.rfft(x[start : start + step]))
            heard.append(f"n{round(float(spectrum.argmax()) * audio.sample_rate / step / 100)}")
        return heard

    def align(self, audio: Audio, text: str) -> tuple[Word, ...]:
        self.asked += 1
        return tuple(Word(w, 0.35 * i, 0.35 * i + 0.3) for i, w in enumerate(text.split()))


@dataclass
class Told:
    tokens: int
    sum: float
    end: float = -1.0

    @property
    def log_probs(self) -> list[float]:
        return [self.sum / self.tokens] * self.tokens

    @property
    def starts(self) -> list[float]:
        return [0.1 * i for i in range(self.tokens)]


class LikesRising:
    """A model that finds rising notes likely, and says everything back ``shift`` Hz higher (and lower)."""

    def __init__(self, shift: float = 0.0, fails: Sequence[int] = ()) -> None:
        self.shift, self.fails, self.calls = shift, fails, 0

    def score(self, audio: Audio) -> Told:
        notes = [int(n[1:]) for n in Listens().notes(audio)]
        rises = sum(b > a for a, b in pairwise(notes))
        return Told(len(notes), float(rises - len(notes)))

    def resynthesize(self, audio: Audio, *, voice: int | str | None = None) -> Audio:
        self.calls += 1
        if self.calls in self.fails:
            raise DataError("It will not. Ask another.")
        n = audio.samples.shape[-1]
        turn = torch.cos(2 * torch.pi * self.shift * torch.arange(n) / audio.sample_rate)
        return Audio(audio.samples * turn, audio.sample_rate)


@pytest.fixture
def tone_speech():
    return tones


@pytest.fixture
def listener() -> Listens:
    return Listens()


@pytest.fixture
def likes_rising() -> type[LikesRising]:
    return LikesRising


@pytest.fixture
def told() -> type[Told]:
    return Told


@pytest.fixture
def scales(tmp_path: Path) -> Manifest:
    """Ten utterances of eight rising notes, each from another one on, with their notes as the text."""
    utterances = []
    for i in range(10):
        notes = [400.0 + 100 * (i + k) for k in range(8)]
        audio, words = tones(notes)
        path = audio.save(tmp_path / f"s{i}.wav")
        text = " ".join(f"n{n / 100:.0f}" for n in notes)
        utterances.append(Utterance(f"s{i}", path, duration=audio.seconds, speaker=f"p{i}", text=text, words=words))
    return Manifest(utterances)


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of a few thousand random parameters that can write letters and times, as a folder."""
    from safetensors.torch import save_file
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from lalia.checkpoints.whisper import preprocessor_config, tokenizer_config
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("tiny-whisper")
    letters = [*"abcdefghijklmnopqrstuvwxyz", "\u0120", *(f"\u0120{c}" for c in "abcdefghijklmnopqrstuvwxyz"), ",", "."]
    merges = [("\u0120", c) for c in "abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.BPE(vocab={x: i for i, x in enumerate(letters)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    named = ["<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>"]
    stamps = [f"<|{i / 50:.2f}|>" for i in range(1501)]
    tokenizer.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in named])
    tokenizer.add_special_tokens([AddedToken(x, special=False, normalized=False) for x in stamps])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {x: len(letters) + i for i, x in enumerate(named)}
    end = special["<|endoftext|>"]
    torch.manual_seed(3)
    config = WhisperConfig(
        vocab_size=len(letters) + len(named) + len(stamps),
        num_mel_bins=80,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_target_positions=64,
        init_std=0.5,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=special["<|startoftranscript|>"],
    )
    model = WhisperForConditionalGeneration(config)
    state = {k: v.contiguous() for k, v in model.state_dict().items() if k != "proj_out.weight"}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = ["WhisperForConditionalGeneration"]
    config.save_pretrained(folder)
    settings = {
        "alignment_heads": [[0, 1], [1, 0]],
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": special["<|startoftranscript|>"],
        "is_multilingual": False,
        "max_initial_timestamp_index": 50,
        "max_length": 64,
        "no_timestamps_token_id": special["<|notimestamps|>"],
        "prev_sot_token_id": special["<|startofprev|>"],
        "begin_suppress_tokens": [end],
        "suppress_tokens": [],
    }
    (folder / "generation_config.json").write_text(json.dumps(settings))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(special, 64)))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor_config(80)))
    return folder
