"""Spans of speech and text, and stretches of time: what is kept, and that nothing is kept twice or lost."""

import random

import pytest
import torch

from lalia.errors import ConfigError
from lalia.layouts import Switch
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.training import Interleave
from lalia.training.crops import cut_time

UNITS = StreamSpec(kind=Discrete(9), frame_rate=10.0, deduplicated=True)
CLOCKED = StreamSpec(kind=Discrete(9), frame_rate=10.0)
SPECS = {"speech": UNITS, "text": StreamSpec(kind=Discrete(99), frame_rate=None)}


def speech() -> TokenSequence:
    """Ten units of two frames each: they begin at 0, 0.2, 0.4, ... seconds."""
    return TokenSequence(torch.arange(10).remainder(9)[None, None], torch.tensor([10]), torch.full((1, 10), 2))


def text() -> TokenSequence:
    """Two tokens for each of five words, which begin at 0, 0.4, ... seconds."""
    times = torch.arange(5).repeat_interleave(2)[None] * 0.4
    return TokenSequence(torch.arange(10)[None, None], torch.tensor([10]), times=times)


def test_each_moment_is_speech_or_text() -> None:
    interleave = Interleave("speech", "text", first_words=(1, 2), second_words=(1, 3))
    seen = set()
    for seed in range(30):
        made = interleave({"speech": speech(), "text": text()}, SPECS, random.Random(seed))
        spoken, written = made["speech"], made["text"]
        assert spoken.times is not None
        assert written.times is not None
        # A word lasts 0.4 s: two units, or two tokens.
        words = [round(t / 0.4) for t in written.times[0].tolist()]
        heard = [int(t / 0.4 + 1e-4) for t in spoken.times[0].tolist()]
        assert sorted(words + heard) == [w for w in range(5) for _ in range(2)]
        assert written.values[0, 0].tolist() == [2 * w + i for w in sorted(set(words)) for i in range(2)]
        seen.add(tuple(words))
    assert len(seen) > 5


def test_what_goes_with_speech_is_there_from_the_beginning_of_each_span() -> None:
    """Pitch that began before a span of speech begins it; none comes while there is text."""
    pitch = TokenSequence(torch.tensor([[[5, 6, 7]]]), torch.tensor([3]), torch.tensor([[7, 3, 10]]))
    specs = {**SPECS, "pitch": UNITS}
    interleave = Interleave("speech", "text", first_words=(1, 1), second_words=(1, 1), beside=("pitch",))
    seen = set()
    for seed in range(8):
        made = interleave({"speech": speech(), "text": text(), "pitch": pitch}, specs, random.Random(seed))
        assert made["pitch"].times is not None
        first = int(made["speech"].values[0, 0, 0]) // 2
        # Words 0, 2, 4 or 1, 3 are spoken, from 0.4 s each; 6 sounds from 0.7 to 1 s, so within words 1 and 2.
        found = [*zip(made["pitch"].values[0, 0].tolist(), made["pitch"].times[0].tolist(), strict=True)]
        wanted = [[(5, 0.0), (6, 0.8), (7, 1.0), (7, 1.6)], [(5, 0.4), (6, 0.7), (7, 1.2)]][first]
        assert found == [(code, pytest.approx(at)) for code, at in wanted]
        seen.add(first)
        layout = Switch(("speech", "text"), beside={"speech": ("pitch",)})
        assert layout.pack(made, specs).num_steps == sum(made[s].num_tokens for s in made) + 5 + 1
    assert seen == {0, 1}


def test_without_times_it_stays_speech() -> None:
    untimed = TokenSequence(text().values, text().lengths)
    made = Interleave("speech", "text")({"speech": speech(), "text": untimed}, SPECS, random.Random(0))
    assert made["speech"].values.tolist() == speech().values.tolist()
    assert made["text"].num_tokens == 0
    beside = {"speech": speech(), "pitch": speech(), "text": untimed}
    made = Interleave("speech", "text", beside=("pitch",))(beside, {**SPECS, "pitch": UNITS}, random.Random(0))
    assert made["pitch"].values.tolist() == speech().values.tolist()
    assert made["pitch"].times is not None
    assert made["pitch"].times.tolist() == made["speech"].times.tolist()  # type: ignore[union-attr]


def test_spans_have_words() -> None:
    with pytest.raises(ConfigError, match="spans of 3 to 2 words"):
        Interleave("speech", "text", first_words=(3, 2))


def test_a_stretch_of_time_is_the_same_in_every_stream() -> None:
    frames = TokenSequence(torch.arange(20)[None, None] % 9, torch.tensor([20]))
    assert cut_time(frames, CLOCKED, 0.5, 0.7).values[0, 0].tolist() == [t % 9 for t in range(5, 12)]
    # Units 2 to 5 sound somewhere between 0.5 and 1.2 s.
    cut = cut_time(speech(), UNITS, 0.5, 0.7)
    assert cut.values[0, 0].tolist() == [2, 3, 4, 5]
    assert cut.durations is not None
    assert cut.durations.tolist() == [[2, 2, 2, 2]]
    with pytest.raises(ConfigError, match="cannot be cut in time"):
        cut_time(text(), SPECS["text"], 0.0, 1.0)
