import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.config import from_dict, to_dict
from lalia.encoders import PitchTracker, Windows
from lalia.encoders.pitch import best_path
from lalia.errors import ConfigError
from lalia.streams import Continuous, StreamSpec

SPEECH = Path(__file__).parents[2].parent / "shared/data/librispeech-mini"
RATE = 16000


def voice(f0: torch.Tensor, *, kind: str = "vowel", sample_rate: int = RATE) -> torch.Tensor:
    """Harmonics of F0 [N] in Hz: a vowel of two formants, a tone, or a telephone's voice without its fundamental."""
    phase = 2 * math.pi * torch.cumsum(f0.double() / sample_rate, 0)
    x = torch.zeros_like(phase)
    for h in range(1, 2 if kind == "tone" else 40):
        hz = h * f0.double()
        formants = 1 / (1 + ((hz - 600) / 80) ** 2) + 0.6 / (1 + ((hz - 1200) / 90) ** 2)
        size = {"vowel": formants / h, "tone": torch.ones_like(hz), "telephone": (hz > 300).double() / h}[kind]
        x += torch.where(hz < 0.45 * sample_rate, size, 0) * torch.sin(h * phase + 0.1 * h * h)
    return (0.3 * x / x.abs().max()).float()


def glide(start: float, stop: float, seconds: float = 1.5, sample_rate: int = RATE) -> torch.Tensor:
    return torch.logspace(math.log10(start), math.log10(stop), round(seconds * sample_rate))


def errors(f0: torch.Tensor, wanted: torch.Tensor, hop: int) -> torch.Tensor:
    """Relative errors of the frames that no end of the sound reaches, which must be voiced."""
    middle = wanted[hop // 2 :: hop][: len(f0)]
    inner = slice(3, -3)
    assert bool((f0[inner] > 0).all())
    return (f0 / middle - 1).abs()[inner]


@pytest.fixture(scope="module")
def tracker() -> PitchTracker:
    return PitchTracker.Config().build()


# -- what it hears --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vowel", "tone", "telephone"])
@pytest.mark.parametrize(("start", "stop"), [(60, 500), (500, 60), (52, 70), (545, 400), (200, 200)])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_glides(tracker: PitchTracker, kind: str, start: float, stop: float, noise: float) -> None:
    f0 = glide(start, stop)
    sound = voice(f0, kind=kind)
    sound = sound + noise * sound.std() * torch.randn(len(sound))
    found, voicing = tracker(sound[None])
    assert float(errors(found[0], f0, 320).max()) < 0.01
    assert float(voicing[0, 3:-3].min()) > 0.6


def test_vibrato(tracker: PitchTracker) -> None:
    f0 = 180 * 2 ** (0.2 * torch.sin(2 * math.pi * 4 * torch.arange(2 * RATE) / RATE))
    assert float(errors(tracker(voice(f0)[None])[0][0], f0, 320).max()) < 0.02


@pytest.mark.parametrize(
    "sound",
    [torch.zeros(RATE), 1e-4 * torch.randn(RATE), 0.3 * torch.randn(2 * RATE), torch.full((RATE,), 0.3)],
    ids=["silence", "hiss", "noise", "offset"],
)
def test_what_has_no_pitch(tracker: PitchTracker, sound: torch.Tensor) -> None:
    f0, voicing = tracker(sound[None])
    assert bool((f0 == 0).all())
    assert float(voicing.median()) < 0.3


def test_voice_between_noises(tracker: PitchTracker) -> None:
    noise = 0.02 * torch.randn(RATE // 2)
    f0, _ = tracker(torch.cat([noise, voice(glide(150, 200, 1.0)), noise])[None])
    assert bool((f0[0, 28:72] > 0).all())
    assert bool((f0[0, :22] == 0).all())
    assert bool((f0[0, 78:] == 0).all())


def test_mains_hum_is_no_voice(tracker: PitchTracker) -> None:
    n = torch.arange(2 * RATE)
    hum = 0.005 * torch.sin(2 * math.pi * 60 * n / RATE) + 0.0005 * torch.randn(len(n))
    sound = hum.clone()
    f0 = glide(180, 240, 0.8)
    sound[RATE // 2 : RATE // 2 + len(f0)] += voice(f0)
    found, _ = tracker(sound[None])
    assert bool((found[0, :20] == 0).all())
    assert float(errors(found[0, 25:65], f0, 320).max()) < 0.02


@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100, 48000])
def test_every_sample_rate_hears_the_same(tracker: PitchTracker, sample_rate: int) -> None:
    f0 = glide(110, 330, 1.0, sample_rate)
    tokens = tracker.encode(Audio(voice(f0, sample_rate=sample_rate), sample_rate))
    assert tokens.values.shape == (1, 50, 2)
    middle = f0[(torch.arange(50) * sample_rate // 50 + sample_rate // 100)]
    assert float((tokens.values[0, 3:-3, 0] / middle[3:-3] - 1).abs().max()) < 0.01


@pytest.mark.parametrize("frame_rate", [12.5, 25.0, 100.0])
def test_every_frame_rate(frame_rate: float) -> None:
    tracker = PitchTracker.Config(frame_rate=frame_rate).build()
    f0 = glide(100, 300)
    found, _ = tracker(voice(f0)[None])
    hop = int(RATE / frame_rate)
    assert found.shape == (1, -(-len(f0) // hop))
    middle = f0[hop // 2 :: hop]
    assert float((found[0, : len(middle)] / middle - 1).abs()[5:-5].max()) < 0.01


def test_speech_has_few_leaps(tracker: PitchTracker) -> None:
    files = sorted(SPEECH.glob("*.flac"))[:4]
    if not files:
        pytest.skip("needs recorded speech")
    for file in files:
        f0 = tracker.encode(Audio.load(file, sample_rate=RATE, mono=True, seconds=8.0)).values[0, :, 0]
        there = f0 > 0
        assert 0.2 < float(there.float().mean()) < 0.8
        both = there[1:] & there[:-1]
        leaps = (f0[1:].clamp(min=1).log2() - f0[:-1].clamp(min=1).log2()).abs()[both]
        assert float((leaps > 0.4).float().mean()) < 0.03
        assert 70 < float(f0[there].median()) < 260


def test_praat_hears_the_same(tracker: PitchTracker) -> None:
    parselmouth = pytest.importorskip("parselmouth")
    files = sorted(SPEECH.glob("*.flac"))[:3]
    if not files:
        pytest.skip("needs recorded speech")
    for file in files:
        audio = Audio.load(file, sample_rate=RATE, mono=True, seconds=8.0)
        f0 = tracker.encode(audio).values[0, :, 0]
        sound = parselmouth.Sound(audio.samples[0, 0].double().numpy(), RATE)
        # The first of these recordings hums, which Praat takes for a voice at 60 Hz, and the tracker leaves out.
        sound = parselmouth.praat.call(sound, "Filter (stop Hann band)...", 0.0, 80.0, 40.0)
        pitch = sound.to_pitch_ac(0.02, 50.0, pitch_ceiling=550)
        theirs = torch.tensor([pitch.get_value_at_time((t + 0.5) / 50) for t in range(len(f0))]).nan_to_num()
        both = (f0 > 0) & (theirs > 0)
        assert float(((f0 > 0) == (theirs > 0)).float().mean()) > 0.8
        assert float(((f0 / theirs)[both].log2().abs() < 0.1).float().mean()) > 0.95


# -- the path -------------------------------------------------------------------------------------


def test_best_path_is_the_best_of_all() -> None:
    chance = np.random.default_rng(0)
    octaves, strength = chance.uniform(0, 3, (3, 5, 2)), chance.uniform(0, 1, (3, 5, 2))
    unvoiced = chance.uniform(0, 1, (3, 5))
    found = best_path(octaves, strength, unvoiced, jump_cost=0.3, voicing_cost=0.2)

    def worth(b: int, path: tuple[int, ...]) -> float:
        total = sum(unvoiced[b, t] if s == 0 else strength[b, t, s - 1] for t, s in enumerate(path))
        for t in range(1, len(path)):
            old, new = path[t - 1], path[t]
            if old and new:
                total -= 0.3 * abs(octaves[b, t - 1, old - 1] - octaves[b, t, new - 1])
            elif old or new:
                total -= 0.2
        return total

    for b in range(3):
        assert tuple(found[b]) == max(itertools.product(range(3), repeat=5), key=lambda p, b=b: worth(b, p))


# -- streaming ------------------------------------------------------------------------------------


@settings(max_examples=6)
@given(
    cuts=st.lists(st.integers(0, 20_000), max_size=4), lengths=st.lists(st.integers(0, 20_000), min_size=2, max_size=2)
)
def test_streaming_equals_offline(cuts: list[int], lengths: list[int]) -> None:
    tracker = PitchTracker.Config(windows=Windows(block=0.3, before=0.2, after=0.1)).build()
    rows = [Audio(voice(glide(100 + 60 * i, 160, 1.25))[:n], RATE) for i, n in enumerate(lengths)]
    whole = tracker.encode(Audio.batch(rows))
    assert whole.lengths.tolist() == [-(-n // 320) for n in lengths]
    for b, row in enumerate(rows):
        assert torch.equal(tracker.encode(row).values[0], whole.row(b).values[0])
        state, pieces = tracker.init_state(1), []
        ends = [*sorted(cuts), 20_000]
        for start, stop in itertools.pairwise([0, *ends]):
            piece = Audio(row.samples[..., start:stop], RATE)
            pieces.append(tracker.encode(piece, state, final=stop == 20_000).values[0])
        assert torch.equal(torch.cat(pieces), whole.row(b).values[0])


def test_spec_config_and_refusals() -> None:
    config = PitchTracker.Config(frame_rate=25.0)
    assert config.build().spec == config.spec == StreamSpec(kind=Continuous(2), frame_rate=25.0)
    assert from_dict(to_dict(config)) == config
    with pytest.raises(ConfigError, match="no whole number of samples"):
        PitchTracker.Config(frame_rate=33.0)
    with pytest.raises(ConfigError, match="from 300 to 200 Hz"):
        PitchTracker.Config(fmin=300, fmax=200)
    with pytest.raises(ConfigError, match="0 candidates"):
        PitchTracker.Config(candidates=0)
    tracker = config.build()
    with pytest.raises(ConfigError, match="Resample it to 16000 Hz"):
        tracker.encode(Audio(torch.zeros(800), 8000), tracker.init_state(1))
