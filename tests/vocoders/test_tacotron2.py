import pytest
import torch

from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError, DataError, LayoutError
from lalia.nn.spectral import LogMel
from lalia.streaming import reset_rows, select_rows
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence
from lalia.vocoders import Tacotron2

SPECS = {"units": StreamSpec(kind=Discrete(10), frame_rate=50.0, deduplicated=True)}
SMALL = Tacotron2.Config(
    "units",
    mel=LogMel.Config(16000, n_fft=640, hop=160, bins=12),
    dim=16,
    num_layers=2,
    decoder_dim=24,
    attention_dim=8,
    prenet_dim=16,
    postnet_dim=8,
    postnet_layers=3,
    frames_per_unit=4.0,
)


def batch(*shapes):
    """Rows of (units, frames)."""
    units, frames = zip(*shapes, strict=True)
    codes = torch.randint(0, 10, (len(shapes), 1, max(units)))
    return {
        "units": TokenSequence(codes, torch.tensor(units)),
        "mel": TokenSequence(torch.randn(len(shapes), max(frames), 12), torch.tensor(frames)),
    }


@pytest.fixture(scope="module")
def tacotron():
    torch.manual_seed(0)
    return SMALL.build(SPECS).eval()


def test_full_size_is_the_published_one():
    with torch.device("meta"):
        model = Tacotron2.Config("units").build({"units": StreamSpec(kind=Discrete(148), frame_rate=None)})
    # The public LJSpeech model, which reads 148 symbols.
    assert sum(p.numel() for p in model.parameters()) == 28_193_153
    assert model.makes == {"mel": StreamSpec(kind=Continuous(80), frame_rate=22050 / 256)}


def test_loss_is_that_of_each_row_alone(tacotron, monkeypatch):
    # Without dropout before the decoder, which is random for each call.
    monkeypatch.setattr(tacotron.decoder, "prenet_dropout", 0.0)
    both = batch((6, 9), (4, 5))
    together = tacotron.losses(both)
    apart = [tacotron.losses({name: s.row(b) for name, s in both.items()}) for b in range(2)]
    for term, value in together.items():
        torch.testing.assert_close(value, apart[0][term] + apart[1][term])
    assert tacotron.counts(both) == {"mel": 14 * 12, "postnet": 14 * 12, "stop": 14}


def test_loss_equals_its_formula(tacotron, monkeypatch):
    monkeypatch.setattr(tacotron.decoder, "prenet_dropout", 0.0)
    streams = batch((5, 3))
    mel, mask = streams["mel"].values, torch.ones(1, 5, dtype=torch.bool)
    memory = tacotron.encode(streams["units"].values[:, 0], streams["units"].lengths)
    before, stop = tacotron.decoder(memory, mask, mel)
    after = before + tacotron.postnet(before, torch.ones(1, 3, dtype=torch.bool))
    losses = tacotron.losses(streams)
    torch.testing.assert_close(losses["mel"], sum((before - mel).flatten() ** 2))
    torch.testing.assert_close(losses["postnet"], sum((after - mel).flatten() ** 2))
    said = torch.sigmoid(stop[0])
    torch.testing.assert_close(losses["stop"], -(torch.log(1 - said[:2]).sum() + torch.log(said[2])))


def test_loss_falls_also_in_bfloat16():
    model, streams = SMALL.build(SPECS), batch((6, 12), (4, 8))
    # Spectra that follow from the units: two frames each.
    table = torch.randn(10, 12)
    streams["mel"] = TokenSequence(table[streams["units"].values[:, 0]].repeat_interleave(2, 1), streams["mel"].lengths)
    optimizer, history = torch.optim.Adam(model.parameters(), 5e-3), []
    for _ in range(40):
        with torch.autocast("cpu", torch.bfloat16):
            losses, counts = model.losses(streams), model.counts(streams)
        loss = sum(losses[term] / counts[term] for term in losses)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.8 * history[0]


def test_synthesis_repeats_itself_and_a_row_does_not_depend_on_others(tacotron):
    units = batch((7, 1), (3, 1), (0, 1))["units"]
    whole = tacotron.convert({"units": units})["mel"]
    assert 0 < whole.lengths[0] <= 28
    assert 0 < whole.lengths[1] <= 12
    assert whole.lengths[2] == 0
    for b in range(2):
        alone = tacotron.convert({"units": units.row(b)})["mel"]
        assert alone.lengths[0] == whole.lengths[b]
        torch.testing.assert_close(alone.values, whole.row(b).values, atol=1e-5, rtol=1e-5)


def test_it_stops_where_the_stop_token_says(tacotron, monkeypatch):
    said = iter([0.1, 0.2, 0.9, 0.1])

    def generate(memory, mask, *, seed):
        for stop in said:
            yield torch.zeros(1, 12), torch.tensor([stop])

    monkeypatch.setattr(tacotron.decoder, "generate", generate)
    assert tacotron.convert({"units": batch((5, 1))["units"]})["mel"].lengths.tolist() == [3]


def test_with_a_state_everything_comes_at_the_end(tacotron):
    units = batch((7, 1), (5, 1))["units"]
    whole = tacotron.convert({"units": units})["mel"]
    state = tacotron.init_state(2)
    for start, stop in ((0, 2), (2, 2), (2, 6)):
        made = tacotron.convert({"units": units.cut(start, stop)}, state)["mel"]
        assert made.values.shape == (2, 0, 12)
    made = tacotron.convert({"units": units.cut(6)}, state, final=True)["mel"]
    assert torch.equal(made.values, whole.values)
    assert torch.equal(made.lengths, whole.lengths)


def test_rows_of_the_state_are_replaced_and_moved(tacotron):
    units = batch((6, 1), (6, 1), (6, 1))["units"]
    state = tacotron.init_state(2)
    tacotron.convert({"units": TokenSequence(units.values[:2, :, :4], torch.tensor([4, 4]))}, state)
    state = reset_rows(state, tacotron.init_state(2), torch.tensor([True, False]))
    state = select_rows(state, torch.tensor([1, 0]))
    rest = TokenSequence(torch.stack([units.values[1, :, 4:], units.values[2, :, :2]]), torch.tensor([2, 2]))
    made = tacotron.convert({"units": rest}, state, final=True)["mel"]
    for b, alone in enumerate((units.row(1), units.row(2).cut(0, 2))):
        wanted = tacotron.convert({"units": alone})["mel"]
        torch.testing.assert_close(made.row(b).values, wanted.values, atol=1e-5, rtol=1e-5)


def test_voices_differ():
    model = Tacotron2.Config(**{**vars(SMALL), "num_speakers": 2}).build(SPECS).eval()
    units = batch((4, 1))["units"]
    first, second = (model.convert({"units": units}, speaker=s)["mel"].values for s in (0, 1))
    assert not torch.equal(first[:, :1], second[:, :1])
    with pytest.raises(LayoutError, match="from 0 to 1"):
        model.convert({"units": units}, speaker=2)


def test_config_survives_and_wrong_input_is_refused(tacotron):
    assert from_dict(to_dict(SMALL)) == SMALL
    with pytest.raises(ConfigError, match="one codebook"):
        SMALL.build({"units": StreamSpec(kind=Discrete(10, num_codebooks=2), frame_rate=50.0)})
    with pytest.raises(DataError, match="no units or no mel frames"):
        tacotron.losses(batch((3, 2), (0, 2)))


def test_more_units_than_attention_is_used_to_are_made_piece_by_piece(monkeypatch):
    torch.manual_seed(0)
    model = Tacotron2.Config(**{**vars(SMALL), "max_units": 5}).build(SPECS).eval()
    units = batch((12, 1), (4, 1), (0, 1))["units"]
    made = model.convert({"units": units})["mel"]
    row = units.row(0)
    pieces = [model.convert({"units": row.cut(a, b)})["mel"] for a, b in ((0, 4), (4, 8), (8, 12))]
    wanted = torch.cat([p.row(0).values for p in pieces], dim=1)
    torch.testing.assert_close(made.row(0).values, wanted, atol=1e-5, rtol=1e-5)
    alone = model.convert({"units": units.row(1)})["mel"]
    torch.testing.assert_close(made.row(1).values, alone.values, atol=1e-5, rtol=1e-5)
    assert made.lengths[2] == 0


def test_it_analyses_what_it_learns_to_make(speech):
    model = SMALL.build(SPECS)
    mel = model.analyse(speech)["mel"]
    assert mel.values.shape == (1, 300, 12)
    torch.testing.assert_close(mel.values[0], SMALL.mel.build()(speech.samples[0, 0]).T)
    assert model.sample_rate == 16000
    assert not [n for n in model.state_dict() if n.startswith("mel.")]
