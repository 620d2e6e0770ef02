"""Streams that were merged with units, on the clock again: what holds when which unit sounds."""

from dataclasses import replace

import pytest
import torch

from lalia.layouts import Switch
from lalia.lm import Linear, Lookup, SpeechLM, Transformer
from lalia.model.merged import on_the_clock
from lalia.model.producing import Wanted, produce
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.vocoders import UnitHifiGan

SPECS = {
    "speech": StreamSpec(kind=Discrete(10), frame_rate=50.0, deduplicated=True),
    "pitch": StreamSpec(kind=Discrete(8), frame_rate=12.5, deduplicated=True),
    "style": StreamSpec(kind=Discrete(5), frame_rate=1.0),
    "text": StreamSpec(kind=Discrete(20), frame_rate=None),
}


def codes(*ids: int, times: list[float] | None = None, durations: list[int] | None = None) -> TokenSequence:
    return TokenSequence(
        torch.tensor(ids, dtype=torch.long).reshape(1, 1, -1),
        torch.tensor([len(ids)]),
        None if durations is None else torch.tensor([durations]),
        None if times is None else torch.tensor([times], dtype=torch.float64),
    )


@pytest.fixture(scope="module")
def vocoder() -> UnitHifiGan:
    torch.manual_seed(0)
    config = UnitHifiGan.Config("speech", predict_durations=True, conditions=("style", "pitch")).tiny()
    built: UnitHifiGan = config.build(SPECS)
    return built.eval()


def test_a_token_holds_until_the_next(vocoder: UnitHifiGan) -> None:
    """[St3] [Pi1] [Hu2] [Hu4] [Pi6] [Hu5], and a first unit that nothing came before."""
    streams = {
        "speech": codes(9, 2, 4, 5, times=[0.0, 3.0, 4.0, 6.0], durations=[8, 12, 20, 40]),
        "pitch": codes(1, 6, times=[2.0, 5.0]),
        "style": codes(3, times=[1.0]),
    }
    made = on_the_clock(streams, vocoder, SPECS)
    # 80 frames at 50 Hz are 20 at 12.5 Hz. 6 begins with the last unit, after 40 of them.
    assert made["pitch"].values.tolist() == [[[1, 6]]]
    assert made["pitch"].durations is not None
    assert made["pitch"].durations.tolist() == [[10, 10]]
    assert made["style"].values.tolist() == [[[3, 3]]]
    assert vocoder.decode(made).samples.shape[-1] == 80 * 320
    unmerged = {n: replace(t, times=None) for n, t in streams.items()}
    assert on_the_clock(unmerged, vocoder, SPECS)["style"].num_tokens == 1


def test_what_was_generated_can_be_spoken(vocoder: UnitHifiGan) -> None:
    streams = ("speech", "text", "style", "pitch")
    torch.manual_seed(0)
    lm: SpeechLM = SpeechLM.Config(
        layout=Switch(("speech", "text"), beside={"speech": ("style", "pitch")}),
        backbone=Transformer.Config(num_layers=1, num_heads=2, dim=16, ffn_dim=32),
        inputs={s: Lookup("all") for s in ("switch", *streams)},
        heads={s: Linear.Config() for s in ("switch", *streams)},
    ).build(SPECS)
    known = {
        "speech": codes(1, 2, 3, durations=[10, 20, 20]),
        "pitch": codes(4, 5, durations=[5, 8]),
        "style": codes(2),
        "text": codes(),
    }
    wanted = Wanted(4.0, lambda stream: 12, ends=False)
    # No text is wanted, so that speech goes on to the end.
    made = produce({"lm": lm}, known, wanted, complete=["text"], seed=1)
    assert (made["speech"].num_tokens, made["text"].num_tokens) == (12, 0)
    for name in ("speech", "pitch", "style"):
        tokens = made[name]
        assert tokens.times is not None
        assert tokens.num_tokens > known[name].num_tokens
        assert bool((tokens.times.diff() > 0).all())
    assert made["speech"].times is not None
    assert made["speech"].times[0, :3].tolist() == pytest.approx([0.0, 0.2, 0.6])
    audio = vocoder.decode(on_the_clock(made, vocoder, SPECS))
    assert audio.samples.shape[-1] == int(vocoder.predict_durations(made["speech"]).sum()) * 320
