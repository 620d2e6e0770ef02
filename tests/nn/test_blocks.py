import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.nn.blocks import run_blocks
from lalia.nn.fir import Field, init_fir, run_fir
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.vocoders import Chain, GriffinLim, Tacotron2, UnitHifiGan, UnitVocos, WaveGlow

SPECS = {"units": StreamSpec(kind=Discrete(20), frame_rate=50.0, deduplicated=True)}
FIELD = Field(3, 2, 4)


def network(frames, rows):
    """A convolution over frames that sees its whole field, four outputs for each frame."""
    weight = torch.arange(1.0, 7.0)[None, None]
    seen = torch.nn.functional.conv1d(torch.nn.functional.pad(frames[:, None, :, 0], (3, 2)), weight)[:, 0]
    return (seen[..., None] * torch.tensor([1.0, 2.0, 3.0, 4.0]) + rows[:, None, None]).flatten(1)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 12))
def test_blocks_give_what_the_whole_gives(lengths, block):
    frames, counts = torch.randn(len(lengths), max(lengths), 1), torch.tensor(lengths)
    wanted, total = run_fir(network, FIELD, frames, counts)
    made, again = run_blocks(network, FIELD, frames, counts, block=block)
    assert torch.equal(total, again)
    for b, n in enumerate(total.tolist()):
        torch.testing.assert_close(made[b, :n], wanted[b, :n])


@settings(max_examples=60)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(1, 9), st.booleans())
def test_blocks_of_a_stream_leave_its_state_as_pieces_would(cuts, block, final):
    pieces = [torch.randn(2, n, 1) for n in cuts]
    states = [init_fir(FIELD, torch.zeros(1, 1, 1), 2) for _ in range(2)]
    for i, piece in enumerate(pieces):
        lengths = torch.tensor([piece.shape[1], piece.shape[1] // 2])
        end = final and i == len(pieces) - 1
        wanted, total = run_fir(network, FIELD, piece, lengths, states[0], final=end)
        made, again = run_blocks(network, FIELD, piece, lengths, states[1], final=end, block=block)
        assert torch.equal(total, again)
        for b, n in enumerate(total.tolist()):
            torch.testing.assert_close(made[b, :n], wanted[b, :n])
    assert torch.equal(states[0].kept, states[1].kept)
    assert torch.equal(states[0].pending, states[1].pending)


def test_a_vocoder_makes_long_speech_in_blocks(monkeypatch):
    vocoder = UnitVocos.Config("units", predict_durations=True).tiny().build(SPECS).eval()
    units = TokenSequence(torch.randint(0, 20, (2, 1, 300)), torch.tensor([300, 120]))
    whole = vocoder.decode({"units": units})
    sizes = []
    plain = vocoder.waveform
    monkeypatch.setattr(vocoder, "waveform", lambda x: sizes.append(x.shape[1]) or plain(x))
    monkeypatch.setattr(run_blocks, "__kwdefaults__", {**run_blocks.__kwdefaults__, "block": 64})
    parts = vocoder.decode({"units": units})
    assert max(sizes) <= 64 + vocoder.field.left + vocoder.field.right
    assert torch.equal(parts.lengths, whole.lengths)
    torch.testing.assert_close(parts.samples, whole.samples, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        UnitVocos.Config("units", predict_durations=True, num_speakers=256),
        UnitHifiGan.Config("units", predict_durations=True, num_speakers=9),
        GriffinLim.Config("units"),
        Chain.Config((Tacotron2.Config("units"),), WaveGlow.Config()),
    ],
    ids=lambda c: c.owner.__name__,
)
def test_tiny_forms_speak(config):
    tiny = config.tiny()
    with torch.device("meta"):
        count = sum(p.numel() for p in tiny.build(SPECS).parameters())
        full = sum(p.numel() for p in config.build(SPECS).parameters())
    assert count < 0.1 * full or full == 0
    vocoder = tiny.build(SPECS).eval()
    assert vocoder.num_speakers <= 4
    audio = vocoder.decode({"units": TokenSequence(torch.randint(0, 20, (1, 1, 6)), torch.tensor([6]))})
    assert audio.sample_rate == config.build(SPECS).sample_rate
    assert audio.samples.numel() > 0
    assert bool(torch.isfinite(audio.samples).all())
