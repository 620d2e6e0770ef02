"""Whether a turn is over."""

from pathlib import Path
from statistics import fmean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.checkpoints import KNOWN, cached
from lalia.errors import ConfigError
from lalia.evaluation.benchmarks import questions
from lalia.realtime.ends import Eagerness, Ends, SmartTurn, Words

QUESTION = Path(__file__).parents[2] / "examples/question.flac"
RATE = 16_000


@pytest.fixture(scope="module")
def smart() -> SmartTurn:
    pytest.importorskip("onnxruntime")
    if cached(KNOWN["smart-turn"]) is None:
        pytest.skip("run: lalia fetch smart-turn")
    return SmartTurn()


@pytest.fixture(scope="module")
def asked() -> torch.Tensor:
    return Audio.load(QUESTION, mono=True, sample_rate=RATE).samples[0, 0]


def test_smart_turn_says_what_upstream_says(smart: SmartTurn, asked: torch.Tensor) -> None:
    """By pipecat-ai 1.14.0, onnxruntime 1.32.0; the longest is more than the 8 s that are heard."""
    upstream = {46_421: 0.97401, 16_000: 0.94249, 1_600: 0.98704, 5 * 46_421: 0.97299}
    for size, expected in upstream.items():
        turn = asked.repeat(5)[:size]
        assert smart(turn) == pytest.approx(expected, abs=3e-3), size
    assert smart(torch.cat([torch.randn(RATE), asked.repeat(5)])) == smart(asked.repeat(5))


def test_whole_questions_sound_more_like_ends_than_what_was_cut_off(smart: SmartTurn) -> None:
    said: dict[bool, list[float]] = {True: [], False: []}
    draw = torch.Generator().manual_seed(0)
    for question in questions(24):
        sound = question.load().to(RATE).samples[0, 0]
        loud = int((sound.abs() > 0.02 * sound.abs().max()).nonzero()[-1])
        for whole, end in ((True, loud), (False, loud // 2)):
            turn = torch.cat([torch.zeros(RATE // 4), sound[:end], torch.zeros(RATE // 5)])
            said[whole].append(smart(turn + 5e-4 * torch.randn(len(turn), generator=draw)))
    assert fmean(p > 0.5 for p in said[True]) > 0.8
    assert fmean(said[True]) > fmean(said[False]) + 0.1


DRAFTS = {
    "open": """What is the|What is the capital of?|Tell me about.|I went to the store and|Why do leaves|Hey, can you|
        How does a bicycle|I think, um|Please tell me:|Well, what I mean is...|How many days were|Can you tell me|
        What color is|Should we|Could you recommend|The thing is that's|Because she was""",
    "leaning": "How many legs|Which planet?|What is the largest?",
    "neither": """Yes.|No|What is the capital?|Where are you from?|What is it made of?|What is The Odyssey about?|Why?|
        Who is that?|Thank you|Good morning|It never rains but this|Who wrote Hamlet?""",
    "closed": """What is the capital of France?|How do I make a cup of tea?|Tell me about the moon.|Do fish ever sleep?|
        Give me some advice for a job interview.|I had a fight with my boss|What should I wear when it rains?""",
}


@pytest.mark.parametrize("kind", DRAFTS)
def test_words_tell_what_is_open(kind: str) -> None:
    drafts = [draft.strip() for draft in DRAFTS[kind].split("|")]
    assert {draft: Words().judge(draft) for draft in drafts} == dict.fromkeys(drafts, kind)


def test_no_words_say_nothing_and_open_ones_that_somebody_goes_on() -> None:
    words = Words()
    assert words("") == words("  ") == words("?!") == 0.5
    assert words("What is the") < words("How many legs") < words("Thank you") < words("What is the capital of France?")


def test_the_bundled_questions_are_whole_and_most_halves_of_them_are_not() -> None:
    words = Words()
    whole = [words(q.text) for q in questions()]
    halves = [words(" ".join(q.text.split()[: len(q.text.split()) // 2])) for q in questions()]
    assert min(whole) >= 0.5
    assert fmean(p < 0.2 for p in halves) > 0.7


@given(st.sampled_from(["low", "medium", "high", "auto"]), st.floats(0, 1), st.floats(0, 1))
def test_who_is_likelier_done_is_waited_for_no_longer(eagerness: Eagerness, p: float, q: float) -> None:
    ends = Ends(Ends.Config(eagerness=eagerness), words=Words())
    least, most = ends.config.least, {"low": 8, "medium": 4, "high": 2, "auto": 4}[eagerness]
    assert ends.seconds(0.0) == pytest.approx(most)
    assert ends.seconds(1.0) == pytest.approx(least)
    assert least - 1e-9 <= ends.seconds(max(p, q)) <= ends.seconds(min(p, q)) <= most + 1e-9


def test_sound_and_words_count_both(asked: torch.Tensor) -> None:
    heard: list[int] = []

    def sure(samples: torch.Tensor) -> float:
        heard.append(len(samples))
        return 0.99

    both, sound, words = Ends(sound=sure, words=Words()), Ends(sound=sure), Ends(words=Words())
    assert both(asked, "What is the") > 3
    assert both(asked, "What is the capital of France?") < 0.5
    assert sound(asked, "What is the") == sound(asked, "") < 0.5
    assert words(asked, "What is the") > words(asked, "Thank you") > words(asked, "What is the capital of France?")
    assert heard == [len(asked)] * 4
    unsure = Ends(sound=lambda _: 0.05, words=Words())
    assert unsure.probability(asked, "Thank you") < both.probability(asked, "Thank you")


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="neither a judge"):
        Ends()
    with pytest.raises(ConfigError, match="no eagerness 'hasty'"):
        Ends.Config(eagerness="hasty")  # type: ignore[arg-type]
    for wrong in ({"least": 0.1}, {"ask": 0.0}, {"least": 2.0, "eagerness": "high"}):
        with pytest.raises(ConfigError, match="Ends asks after"):
            Ends.Config(**wrong)  # type: ignore[arg-type]
