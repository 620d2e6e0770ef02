"""How something is said, as words for a text LM."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.config import from_dict, to_dict
from lalia.encoders.delivery import Delivery
from lalia.errors import ConfigError
from lalia.streams import Continuous
from lalia.tokenizers import Manner

SPEECH = Path(__file__).parents[2].parent / "shared/data/librispeech-mini"
QUESTION = Path(__file__).parents[2] / "examples/question.flac"
USUAL = Delivery(level=-24.0, rate=0.0, pitch=7.0, voicing=0.85, harmonicity=0.64)
MEANT = {
    "whispered": Delivery(-30.0, 0.0, math.nan, 0.3, 0.35),
    "quiet": Delivery(-42.0, 0.0, 7.0, 0.85, 0.64),
    "slow": Delivery(-24.0, -0.5, 7.0, 0.85, 0.64),
    "fast": Delivery(-24.0, 0.6, 7.0, 0.85, 0.64),
}


@pytest.fixture(scope="module")
def manner() -> Manner:
    made: Manner = Manner.Config().tiny().build()
    return made


def likeliest(manner: Manner, said: Delivery, *earlier: Delivery) -> str:
    best = int(manner.probabilities(said, earlier).argmax())
    return ("usual", *manner.names)[best]


@pytest.mark.parametrize("name", list(MEANT))
def test_each_manner_is_told(manner: Manner, name: str) -> None:
    assert likeliest(manner, MEANT[name]) == name
    # The request as the LM would be typed it: bytes, each with its own embedding.
    tokens = manner.tokens_of(MEANT[name]).values[0]
    text = f" Please answer {manner.config.words[name]}."
    assert len(tokens) in (len(text), len(" Please answer") + 2)
    chance = float(manner.probabilities(MEANT[name])[1:].max() / manner.probabilities(MEANT[name])[1:].sum())
    assert (len(tokens) == len(text)) == (chance >= manner.config.sure)


def test_said_as_usual_nothing_is_added(manner: Manner) -> None:
    assert likeliest(manner, USUAL) == "usual"
    assert manner.tokens_of(USUAL).values.shape == (1, 0, 64)
    assert manner.tokens_of(Delivery()).num_tokens == 0


def test_a_doubtful_manner_is_an_expectation(manner: Manner) -> None:
    said = Delivery(-42.0, -0.6, 7.0, 0.85, 0.64)
    chances = manner.probabilities(said)
    assert chances[0] < 0.5
    shares = chances[1:] / (1 - chances[0])
    assert shares.max() < manner.config.sure
    tokens = manner.tokens_of(said).values[0]
    assert torch.allclose(tokens[len(manner.before)], shares @ manner.adverbs, atol=1e-5)


def test_what_was_said_before_tells_what_is_usual(manner: Manner) -> None:
    faint, louder = Delivery(-42.0, 0.0, 7.0), Delivery(-32.0, 0.0, 7.0)
    assert likeliest(manner, faint) == "quiet"
    # A microphone that is always faint.
    assert likeliest(manner, faint, faint) == "usual"
    assert likeliest(manner, louder, faint) == "loud"
    assert likeliest(manner, louder) == "usual"
    # High for this voice, and so not for another.
    assert likeliest(manner, Delivery(pitch=12.0), Delivery(pitch=5.0), Delivery(pitch=5.0)) == "high"
    assert likeliest(manner, Delivery(pitch=12.0)) == "usual"
    # Who has whispered goes on whispering.
    assert likeliest(manner, *[MEANT["whispered"]] * 4) == "whispered"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.builds(Delivery, *[st.one_of(st.just(math.nan), st.floats(-80, 80))] * 5), min_size=1, max_size=5),
)
def test_probabilities_are_such(manner: Manner, said: list[Delivery]) -> None:
    chances = manner.probabilities(said[0], said[1:])
    assert chances.shape == (1 + len(manner.names),)
    assert bool(((chances >= 0) & (chances <= 1)).all())
    assert float(chances.sum()) == pytest.approx(1, abs=1e-5)
    assert bool(manner.tokens_of(said[0], said[1:]).values.isfinite().all())


@settings(max_examples=30, deadline=None)
@given(st.floats(-60, -25), st.floats(0.1, 20))
def test_the_fainter_the_likelier_quiet(manner: Manner, level: float, less: float) -> None:
    quiet = 1 + manner.names.index("quiet")
    one, other = (manner.probabilities(Delivery(level=x))[quiet] for x in (level, level - less))
    assert other >= one


def test_words_tell_the_rate(manner: Manner) -> None:
    audio = Audio.load(QUESTION, mono=True)
    (few,), (many,), (none,) = (manner.hear(audio, words=[w]) for w in ("Oh.", "word " * 60, ""))
    assert few.rate < many.rate
    assert math.isnan(none.rate)
    assert likeliest(manner, few) == "slow"
    assert likeliest(manner, many) == "fast"


def test_a_stream_is_heard_as_the_whole(manner: Manner) -> None:
    audio = Audio.load(QUESTION, mono=True, sample_rate=16000)
    audio = Audio(audio.samples * 0.01, 16000)
    state = manner.init_state(1)
    assert manner.encode(audio.cut(0.0, 1.0), state).num_tokens == 0
    streamed = manner.encode(audio.cut(1.0), state, final=True)
    whole = manner.encode(audio)
    assert whole.num_tokens > 0
    assert torch.equal(streamed.values, whole.values)
    with pytest.raises(ConfigError, match="Resample"):
        manner.encode(Audio(torch.zeros(1, 1, 100), 8000), state)


def test_what_is_known_before_building() -> None:
    config = Manner.Config()
    assert config.spec.kind == Continuous(576)
    assert from_dict(to_dict(config)) == config
    assert hash(config) == hash(Manner.Config())
    for wrong, match in (
        ({"words": {"angry": "calmly"}}, "words for angry"),
        ({"words": {}}, "words for nothing"),
        ({"request": "Please."}, "Put one"),
        ({"usual": 1.0}, "between 0 and 1"),
    ):
        with pytest.raises(ConfigError, match=match):
            Manner.Config(**wrong)


@pytest.mark.skipif(not SPEECH.exists(), reason="needs LibriSpeech")
def test_most_of_what_is_read_aloud_is_said_as_usual(manner: Manner) -> None:
    files = sorted(SPEECH.glob("*.flac"))[::9]
    added = [manner.encode(Audio.load(f, seconds=4.0)).num_tokens > 0 for f in files]
    assert sum(added) <= 0.15 * len(files)
