import pytest
import torch
from safetensors.torch import load_file, save_file

from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError, LayoutError
from lalia.nn.spectral import LogMel
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.vocoders import Chain, GriffinLim, Tacotron2, WaveGlow

SPECS = {"units": StreamSpec(kind=Discrete(10), frame_rate=50.0, deduplicated=True)}
MEL = LogMel.Config(16000, n_fft=640, hop=160, bins=12)
TACOTRON = Tacotron2.Config(
    "units",
    mel=MEL,
    num_speakers=2,
    dim=8,
    decoder_dim=8,
    attention_dim=8,
    prenet_dim=8,
    postnet_dim=8,
    frames_per_unit=3.0,
)
ENDS = {
    "waveglow": WaveGlow.Config(sample_rate=16000, window=640, num_flows=2, num_layers=2, dim=4),
    "griffin_lim": GriffinLim.Config("mel", sample_rate=16000, bins=12, iterations=2),
}


@pytest.fixture(params=ENDS)
def config(request):
    return Chain.Config((TACOTRON,), ENDS[request.param])


def units(*lengths):
    return TokenSequence(torch.randint(0, 10, (len(lengths), 1, max(lengths))), torch.tensor(lengths))


def test_it_is_its_parts_in_turn(config):
    chain, given = config.build(SPECS).eval(), {"units": units(6, 4)}
    assert (chain.reads, chain.sample_rate, config.stream) == (("units",), 16000, "units")
    made = chain.stages[0].convert(given, speaker=1)
    audio = chain.decode(given, speaker=1)
    assert torch.equal(audio.samples, chain.vocoder.decode(made).samples)
    assert torch.equal(audio.lengths, made["mel"].lengths * 160)
    assert set(given) == {"units"}


def test_streaming_equals_offline(config, in_pieces):
    chain, given = config.build(SPECS).eval(), units(7, 5)
    whole = chain.decode({"units": given})
    for b, row in enumerate(in_pieces(chain, "units", given, [2, 6])):
        torch.testing.assert_close(row, whole.row(b).samples[0, 0], atol=1e-5, rtol=0)


def test_config_and_weights_survive_a_file(config, tmp_path):
    chain, given = config.build(SPECS).eval(), {"units": units(5)}
    save_file(chain.state_dict(), tmp_path / "weights.safetensors")
    again = from_dict(to_dict(config)).build(SPECS).eval()
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(chain.decode(given).samples, again.decode(given).samples)


def test_parts_that_do_not_fit_are_refused(config):
    with pytest.raises(ConfigError, match="Tacotron2 makes another 'mel' than there is"):
        config.build({**SPECS, "mel": SPECS["units"]})
    with pytest.raises(ConfigError, match="WaveGlow reads the stream 'other'"):
        Chain.Config((TACOTRON,), WaveGlow.Config("other")).build(SPECS)
    with pytest.raises(LayoutError, match="from 0 to 1"):
        config.build(SPECS).decode({"units": units(5)}, speaker=3)


def test_parts_by_what_they_make(config):
    chain = config.build(SPECS)
    assert config.makes == ("mel", "audio")
    tacotron, last = chain.part("mel"), chain.part("audio")
    assert tacotron is chain.stages[0]
    assert last is chain.vocoder
    assert chain.stages_until(tacotron) == chain.stages_until(last) == [tacotron]
    with pytest.raises(ConfigError, match=r"makes 'pitch'\. Name one of mel, audio"):
        chain.part("pitch")
