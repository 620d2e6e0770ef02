import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.audio_utils import mel_filter_bank

from lalia.errors import ConfigError
from lalia.nn.spectral import LogMel, hann, istft, magnitude, mel_filters, spectral_distance, stft


@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "bins", "fmin", "fmax"), [(16000, 1024, 80, 0.0, 8000.0), (22050, 512, 24, 60.0, 7600.0)]
)
def test_mel_filters_equal_an_independent_implementation(sample_rate, n_fft, bins, fmin, fmax):
    theirs = mel_filter_bank(n_fft // 2 + 1, bins, fmin, fmax, sample_rate, norm="slaney", mel_scale="slaney")
    ours = mel_filters(sample_rate, n_fft, bins, fmin, fmax)
    np.testing.assert_allclose(ours.numpy(), theirs.T, atol=1e-7)


def test_log_mel_equals_a_fourier_transform_written_out():
    config = LogMel.Config(8000, n_fft=32, hop=8, bins=5)
    x = torch.randn(40)
    room = (32 - 8) // 2
    padded = np.pad(x.numpy().astype(np.float64), room, mode="reflect")
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / 32) for n in range(32)]
    rows = []
    for start in range(0, 40, 8):
        frame = [padded[start + n] * window[n] for n in range(32)]
        bins = []
        for k in range(17):
            value = sum(frame[n] * np.exp(-2j * math.pi * k * n / 32) for n in range(32))
            bins.append(math.sqrt(abs(value) ** 2 + 1e-9))
        rows.append(bins)
    wanted = np.log(np.maximum(mel_filters(8000, 32, 5).numpy() @ np.array(rows).T, 1e-5))
    np.testing.assert_allclose(config.build()(x).numpy(), wanted, atol=1e-4)


@given(st.integers(1, 6), st.sampled_from([1, 2, 3, 4, 8]), st.integers(1, 12))
def test_inverse_gives_the_samples_back(half_hop, overlap, frames):
    hop = 2 * half_hop
    x = torch.randn(2, frames * hop)
    # A window that is nowhere zero: with a single hop of overlap nothing else can be undone.
    window = hann(overlap * hop) + 0.1
    back = istft(stft(x, overlap * hop, hop, window), hop, window)
    torch.testing.assert_close(back, x, atol=1e-4, rtol=1e-4)


def test_frames_stay_aligned_when_both_are_cut():
    window, x = hann(64), torch.randn(16 * 40)
    whole = magnitude(x, 64, 16, window)
    piece = magnitude(x[16 * 10 : 16 * 30], 64, 16, window)
    torch.testing.assert_close(piece[:, 2:-2], whole[:, 12:28])


def test_log_mel_has_a_gradient_even_at_silence():
    mel = LogMel.Config(16000, n_fft=64, hop=16, bins=8).build()
    for x in (torch.randn(1, 320), torch.zeros(1, 320)):
        x.requires_grad_()
        mel(x).sum().backward()
        assert torch.isfinite(x.grad).all()
    x = torch.randn(1, 320, requires_grad=True)
    mel(x).sum().backward()
    assert (x.grad != 0).all()


def test_autocast_changes_nothing():
    mel, x = LogMel.Config(16000, n_fft=64, hop=16, bins=8).build(), torch.randn(1, 320)
    with torch.autocast("cpu", torch.bfloat16):
        inside = mel(x)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, mel(x))


def test_a_signal_shorter_than_the_window_is_continued_by_silence():
    assert LogMel.Config(16000, n_fft=1024, hop=256, bins=8).build()(torch.randn(256)).shape == (8, 1)


def test_spectral_distance_equals_its_formula():
    made, real = torch.randn(3, 512), torch.randn(3, 512)
    wanted = []
    for b in range(3):
        parts = []
        for n_fft in (32, 64):
            m, r = (magnitude(x[b], n_fft, n_fft // 4, hann(n_fft)).numpy() for x in (made, real))
            parts.append(np.sqrt(((m - r) ** 2).sum()) / np.sqrt((r**2).sum()) + np.abs(np.log(m / r)).mean())
        wanted.append(sum(parts) / 2)
    np.testing.assert_allclose(spectral_distance(made, real, (32, 64)).numpy(), wanted, rtol=1e-4)
    assert spectral_distance(real, real, (32, 64)).abs().max() == 0


def test_impossible_grids_and_bands_are_refused():
    with pytest.raises(ConfigError, match="n_fft 65 and hop 16"):
        LogMel.Config(16000, n_fft=65, hop=16).build()
    with pytest.raises(ConfigError, match=r"9000.* do not fit a sample rate of 16000"):
        LogMel.Config(16000, fmax=9000.0).build()
    with pytest.raises(ConfigError, match="no multiple"):
        istft(torch.zeros(9, 4, dtype=torch.complex64), 6, hann(16))
