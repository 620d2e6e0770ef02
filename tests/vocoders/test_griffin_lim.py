import pytest
import torch

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.nn.spectral import LogMel, hann, magnitude
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence
from lalia.vocoders import GriffinLim
from lalia.vocoders.griffin_lim import griffin_lim

UNITS = {"units": StreamSpec(kind=Discrete(4), frame_rate=50.0)}
SMALL = GriffinLim.Config("units", sample_rate=8000, upsample=2, bins=20, iterations=4)


def convergence(made, size):
    """Distance of the magnitudes in dB; Griffin and Lim minimise it."""
    difference = magnitude(made, 640, 160, hann(640)) - size
    return float(20 * torch.log10(difference.norm() / size.norm()))


def test_speech_converges_and_momentum_helps(speech):
    size = magnitude(speech.samples[0, 0], 640, 160, hann(640))
    few, many, plain = (
        convergence(griffin_lim(size, 160, hann(640), iterations=n, momentum=m), size)
        for n, m in ((2, 0.99), (32, 0.99), (32, 0.0))
    )
    assert many < -24
    assert many < plain - 3 < few - 3


def test_a_vowel_comes_back_from_its_mel_spectrum():
    t = torch.arange(16000) / 16000
    vowel = sum(torch.sin(2 * torch.pi * 120 * k * t) / k for k in range(1, 20)) * 0.1
    mel = LogMel.Config(16000, n_fft=640, hop=160, bins=80).build()
    vocoder = GriffinLim.Config("mel").build({"mel": StreamSpec(kind=Continuous(80), frame_rate=100.0)})
    audio = vocoder.decode({"mel": TokenSequence(mel(vowel).T[None], torch.tensor([100]))})
    again = mel(audio.samples[0, 0])
    assert audio.lengths.tolist() == [16000]
    assert (again - mel(vowel)).abs().mean() < 0.25


def test_fit_finds_the_mean_spectrum_of_every_unit_however_it_is_batched():
    vocoder, batched = SMALL.build(UNITS), SMALL.build(UNITS)
    codes, samples = torch.randint(0, 3, (3, 1, 30)), torch.randn(3, 1, 30 * 160) * 0.1
    lengths = torch.tensor([30, 22, 30])
    audio = Audio(samples, 8000, lengths * 160)
    vocoder.fit([({"units": TokenSequence(codes, lengths)}, audio)])
    batched.fit([({"units": TokenSequence(codes, lengths).row(b)}, audio.row(b)) for b in (2, 0)])
    batched.fit([({"units": TokenSequence(codes, lengths).row(1)}, audio.row(1))])
    torch.testing.assert_close(vocoder.table, batched.table, atol=1e-4, rtol=1e-4)
    for unit in range(3):
        frames = []
        for b, n in enumerate(lengths.tolist()):
            spectra = vocoder.mel(samples[b, 0, : n * 160]).T
            frames += [spectra[2 * t : 2 * t + 2] for t in range(n) if codes[b, 0, t] == unit]
        torch.testing.assert_close(vocoder.table[unit], torch.stack(frames).mean(0), atol=1e-4, rtol=1e-4)
        assert vocoder.count[unit] == len(frames)
    everything = (vocoder.table * vocoder.count[:, None, None]).sum(0) / vocoder.count.sum()
    torch.testing.assert_close(vocoder.log_mel(torch.tensor([3])), everything)


def test_units_of_speech_are_spoken_with_their_spectra(speech):
    vocoder = GriffinLim.Config("units", upsample=2, iterations=16).build(UNITS)
    frames = speech.samples.shape[-1] // 320
    loudness = vocoder.mel(speech.samples[0, 0, : frames * 320]).mean(0).view(-1, 2).mean(1)
    codes = torch.bucketize(loudness, torch.quantile(loudness, torch.tensor([0.25, 0.5, 0.75])))[None, None]
    streams = {"units": TokenSequence(codes, torch.tensor([frames]))}
    vocoder.fit([(streams, speech)])
    made = vocoder.decode(streams)
    heard = vocoder.mel(made.samples[0, 0]).mean(0).view(-1, 2).mean(1)
    assert torch.corrcoef(torch.stack([heard, loudness]))[0, 1] > 0.8


def test_with_a_state_everything_comes_at_the_end(in_pieces):
    vocoder = SMALL.build(UNITS)
    vocoder.table.normal_()
    vocoder.count.fill_(1)
    units = TokenSequence(torch.randint(0, 4, (3, 1, 12)), torch.tensor([12, 5, 0]))
    whole = vocoder.decode({"units": units})
    assert whole.lengths.tolist() == [12 * 160, 5 * 160, 0]
    for b, row in enumerate(in_pieces(vocoder, "units", units, [2, 7, 7])):
        assert torch.equal(row, whole.row(b).samples[0, 0])
    state = vocoder.init_state(3)
    assert vocoder.decode({"units": units}, state).lengths.tolist() == [0, 0, 0]


def test_wrong_streams_are_refused():
    with pytest.raises(ConfigError, match="reads one codebook, and 'units' has 2"):
        SMALL.build({"units": StreamSpec(kind=Discrete(4, num_codebooks=2), frame_rate=50.0)})
    with pytest.raises(ConfigError, match="20 mel bands and 'units' has 8"):
        SMALL.build({"units": StreamSpec(kind=Continuous(8), frame_rate=50.0)})


def test_it_builds_without_memory():
    with torch.device("meta"):
        empty = SMALL.build(UNITS)
    real = SMALL.build(UNITS)
    real.table.normal_()
    empty.load_state_dict(real.state_dict(), assign=True)
    units = {"units": TokenSequence(torch.randint(0, 4, (1, 1, 5)), torch.tensor([5]))}
    assert torch.equal(empty.decode(units).samples, real.decode(units).samples)


def test_units_without_repeats_last_as_long_as_they_did_on_average(in_pieces):
    vocoder = SMALL.build({"units": StreamSpec(kind=Discrete(4), frame_rate=50.0, deduplicated=True)})
    codes = torch.tensor([[[0, 0, 0, 1, 0, 1, 2, 2, 0, 0]]])
    units = TokenSequence(codes, torch.tensor([10])).deduplicate()
    vocoder.fit([({"units": units}, Audio(torch.randn(1, 1, 10 * 160), 8000))])
    # 0 lasted 3, 1 and 2 frames, 1 one each, 2 two; 3 was never heard, and takes the mean of all runs, 10 / 6.
    given = TokenSequence(
        torch.tensor([[[0, 1, 2, 3], [3, 0, 9, 9]]]).transpose(0, 1).clamp(max=3), torch.tensor([4, 2])
    )
    assert vocoder.predict_durations(given).tolist() == [[2, 1, 2, 2], [2, 2, 0, 0]]
    audio = vocoder.decode({"units": given})
    assert audio.lengths.tolist() == [7 * 160, 4 * 160]
    for b, row in enumerate(in_pieces(vocoder, "units", given, [1, 3])):
        assert torch.equal(row, audio.row(b).samples[0, 0])
    # Durations that are given are kept.
    assert vocoder.decode({"units": units}).lengths.tolist() == [10 * 160]


def test_long_recordings_are_made_in_blocks_that_join(speech, monkeypatch):
    vocoder = GriffinLim.Config("mel", iterations=8).build({"mel": StreamSpec(kind=Continuous(80), frame_rate=100.0)})
    mel = vocoder.mel(speech.samples[0, 0]).T
    whole = vocoder.synthesize(mel)
    monkeypatch.setattr("lalia.vocoders.griffin_lim._BLOCK", 70)
    parts = vocoder.synthesize(mel)
    assert parts.shape == whole.shape
    near, far = ((vocoder.mel(x).T - mel).abs().mean() for x in (whole, parts))
    assert far < 1.4 * near
    # No click where two blocks meet: neighbouring samples differ as little as they do anywhere.
    steps, usual = ((x[1:] - x[:-1]).abs() for x in (parts, whole))
    assert steps.max() < 1.2 * usual.max()
    assert torch.equal(parts[: 40 * 160], vocoder.synthesize(mel[:70])[: 40 * 160])
