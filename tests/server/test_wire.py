"""Sound on the wire, beside what Python has for telephones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.server.wire import PCM, Decoder, Encoder, WireFormat, pcm16

MU, A = WireFormat("audio/pcmu", 8000), WireFormat("audio/pcma", 8000)


def naive_mu_law(value: int) -> int:
    """G.711: bias, find the segment, take four bits of it."""
    sign, size = (0x80, -value) if value < 0 else (0, value)
    size = min(size // 4, 8158) + 33
    segment = max(size.bit_length() - 6, 0)
    return ~(sign | segment << 4 | size >> segment + 1 & 15) & 255


@pytest.mark.parametrize("format_", [MU, A])
def test_bytes_of_telephones_stay_the_same(format_: WireFormat) -> None:
    """Every byte stands for a value, whose nearest byte it is; of +0 and -0 one is taken."""
    every = bytes(range(256))
    sound = Decoder(format_)(every)
    again = Encoder(format_, 8000)(sound)
    back = Decoder(format_)(again)
    assert torch.equal(back.samples, sound.samples)
    assert sum(a != b for a, b in zip(every, again, strict=True)) <= 1


@given(st.integers(-32768, 32767))
def test_the_mu_law_is_that_of_the_standard(value: int) -> None:
    made = Encoder(MU, 8000)(Audio(torch.tensor([[[value / 32768]]]), 8000))[0]
    ours, theirs = (int(Decoder(MU)(bytes([b])).samples * 32768) for b in (made, naive_mu_law(value)))
    # The nearest is never farther than the standard's choice, which cuts.
    assert abs(ours - value) <= abs(theirs - value)
    assert abs(ours - theirs) <= abs(value) / 8 + 16


def test_the_laws_have_their_known_values() -> None:
    """Silence, the greatest of either sign, and one in between (G.711, tables 1a to 2b)."""
    mu = (Decoder(MU)(bytes([0xFF, 0x80, 0x00])).samples[0, 0] * 32768).tolist()
    a = (Decoder(A)(bytes([0xD5, 0xAA, 0x2A])).samples[0, 0] * 32768).tolist()
    assert mu == [0, 32124, -32124]
    assert a == [8, 32256, -32256]


@given(st.binary(max_size=200), st.lists(st.integers(0, 60), max_size=5))
def test_sound_does_not_depend_on_where_it_is_cut(data: bytes, cuts: list[int]) -> None:
    decoder, pieces, at = Decoder(PCM), [], 0
    for cut in [*sorted(cuts), len(data)]:
        pieces.append(decoder(data[at:cut] if cut > at else b"").samples)
        at = max(at, cut)
    whole = Decoder(PCM)(data).samples
    assert torch.equal(torch.cat(pieces, dim=-1), whole)
    assert Encoder(PCM, 24000)(Audio(whole, 24000)) == data[: len(data) // 2 * 2]


def test_a_stream_at_another_rate_is_as_long() -> None:
    sound = Audio(torch.sin(torch.arange(16000) * 2 * math.pi * 440 / 16000)[None, None] / 2, 16000)
    encoder = Encoder(PCM, 16000)
    made = b"".join(encoder(Audio(x, 16000)) for x in sound.samples.split(1234, dim=-1)) + encoder(None, final=True)
    heard = np.frombuffer(made, "<i2") / 32768
    assert len(heard) == pytest.approx(24000, abs=2)
    expected = np.sin(np.arange(len(heard)) * 2 * math.pi * 440 / 24000) / 2
    assert np.abs(heard - expected)[200:-200].max() < 0.01


def test_what_is_too_loud_is_clipped() -> None:
    assert pcm16(np.array([2.0, -2.0, 1.0, 0.0])).tolist() == [32767, -32768, 32767, 0]
