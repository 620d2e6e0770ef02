"""Who is spoken to."""

import math
from dataclasses import replace
from itertools import pairwise
from statistics import fmean

import pytest
import torch
from torch import Tensor

from lalia.checkpoints import KNOWN, cached
from lalia.errors import ConfigError
from lalia.evaluation.benchmarks import questions
from lalia.lm.hf import HF
from lalia.model import Model
from lalia.nn.transformer import Transformer
from lalia.realtime.addressee import (
    Every,
    Learned,
    Near,
    Utterance,
    Verdict,
    WakeWord,
    measure_distance,
    sounds_like,
)
from lalia.recipes import find
from lalia.tokenizers.spelling import Spelling
from tiny_mini import tiny_mini

RATE = 16_000


def said(text: str, since: float = math.inf) -> Utterance:
    return Utterance(torch.zeros(RATE), text, since=since)


def in_room(samples: Tensor, level: float, *, echo: float = 0.0, noise: float = -70.0) -> Tensor:
    """Samples [N] whose loudest 20 ms have a level in dBFS, in a room that answers for ``echo`` s as loudly."""
    draw = torch.Generator().manual_seed(0)
    sound = torch.cat([torch.zeros(RATE // 4), samples, torch.zeros(RATE // 3)])
    if echo:
        after = torch.arange(1, round(echo * RATE)) / RATE
        tail = torch.randn(len(after), generator=draw) * torch.exp(-6.9 * after / echo)
        answer = torch.cat([torch.ones(1), tail / tail.square().sum().sqrt()])
        n = len(sound) + len(answer)
        sound = torch.fft.irfft(torch.fft.rfft(sound, n) * torch.fft.rfft(answer, n), n)[: len(sound)]
    loudest = sound.unfold(0, 320, 160).square().mean(-1).max().sqrt()
    return sound * 10 ** (level / 20) / loudest + 10 ** (noise / 20) * torch.randn(len(sound), generator=draw)


@pytest.fixture(scope="module")
def voices() -> list[Tensor]:
    """Eight, of people and machines that differ."""
    return [question.load().to(RATE).samples[0, 0] for question in questions(8)]


def test_measures_of_distance_follow_the_room(voices: list[Tensor]) -> None:
    for voice in voices:
        dry, quiet, far = (
            measure_distance(in_room(voice, level, echo=echo))
            for level, echo in ((-12.0, 0.0), (-32.0, 0.0), (-12.0, 0.7))
        )
        assert dry is not None
        assert quiet is not None
        assert far is not None
        assert dry.level - quiet.level == pytest.approx(20, abs=1)
        assert quiet.noise == pytest.approx(dry.noise, abs=3)
        assert dry.decay > far.decay + 0.5


def test_who_is_far_away_is_not_answered(voices: list[Tensor]) -> None:
    near = Near()
    for voice in voices:
        close = near(Utterance(in_room(voice, -14), "What?"))
        assert close.addressed
        assert close.text == "What?"
        assert not near(Utterance(in_room(voice, -38, echo=0.7), "What?")).addressed
    assert near.usual is not None
    usual = near.usual
    assert -26 < usual < -13
    # As dry as one who is near, and much fainter: it is only known of whoever is talked with how loud he is.
    faint = Utterance(in_room(voices[2], -45, noise=-85), "What?")
    assert not near(faint).addressed
    assert Near()(faint).addressed
    assert near.usual == usual


def test_where_nobody_speaks_nobody_is_near() -> None:
    near = Near()
    for samples in (torch.zeros(RATE), torch.zeros(0), 1e-6 * torch.randn(RATE)):
        assert near(Utterance(samples, "")) == Verdict(False, 0.0, "")
    assert near.usual is None


@pytest.mark.parametrize(
    "heard",
    [
        "Hey Lalia, what time is it?",
        "Hey, Laliya. What time is it?",
        "hey Lolia what time is it?",
        "Hey la Leah, what time is it?",
        "Hey Lally, uh, what time is it?",
        "OK, hey Lalia, what time is it?",
    ],
)
def test_a_name_is_found_however_it_is_spelled(heard: str) -> None:
    verdict = WakeWord(["hey lalia"])(said(heard))
    assert verdict.addressed
    assert verdict.text.lower().removeprefix("uh, ") == "what time is it?"
    assert verdict.score > 0.7


@pytest.mark.parametrize(
    "heard",
    [
        "Hey, what time is it?",
        "What time is it, Lalia?",
        "They lie, all of them.",
        "",
        "Hello there.",
        "Hey Laura, come!",
    ],
)
def test_without_the_name_only_an_exchange_that_was_just_now_counts(heard: str) -> None:
    wake = WakeWord(["hey lalia"], WakeWord.Config(seconds=5))
    assert wake(said(heard)) == Verdict(False, 0.0, heard)
    assert wake(said(heard, since=4.9)) == Verdict(True, 1.0, heard)
    assert not wake(said(heard, since=5.1)).addressed


def test_a_name_anywhere() -> None:
    wake = WakeWord(["Lalia", "computer"], WakeWord.Config(anywhere=True))
    assert wake(said("What time is it, Lalia?")) == Verdict(True, 1.0, "What time is it?")
    assert wake(said("Tell me, computer, who are you?")).text == "Tell me who are you?"
    assert wake(said("Lalia.")).text == ""
    assert not wake(said("I commute every day.")).addressed


def test_no_bundled_question_calls_by_a_name() -> None:
    wake = WakeWord(["hey lalia", "lalia", "hello computer"])
    assert not [q.text for q in questions() if wake(said(q.text)).addressed]


def test_likeness_has_an_order() -> None:
    said_so = ["hey lalia", "hey laliya", "hey dahlia", "hey julia", "hey there", "excuse me sir"]
    assert sounds_like("lalia", "lalia") == sounds_like("", "") == 0
    distances = [sounds_like(one, "hey lalia") for one in said_so]
    assert all(a < b for a, b in pairwise(distances))
    assert sounds_like("knight", "nite") == 0
    assert sounds_like("", "lalia") == 1


def test_every_judge_must_agree() -> None:
    asked: list[str] = []

    def always(verdict: bool) -> object:
        def judge(utterance: Utterance) -> Verdict:
            asked.append(utterance.text)
            return Verdict(verdict, 0.8 if verdict else 0.1, utterance.text)

        return judge

    yes, no = always(True), always(False)
    wake = WakeWord(["hey lalia"])
    assert Every(wake, yes)(said("Hey Lalia, stop.")) == Verdict(True, 0.8, "Stop.")  # type: ignore[arg-type]
    assert asked == ["Stop."]
    assert Every(no, yes)(said("Stop.")) == Verdict(False, 0.1, "Stop.")  # type: ignore[arg-type]
    assert asked == ["Stop.", "Stop."]
    with pytest.raises(ConfigError, match="nobody to ask"):
        Every()


@pytest.fixture(scope="module")
def learned() -> Learned:
    """With the LM of mini, of which nothing else is needed."""
    folder = cached(KNOWN["smollm2-135m-instruct"])
    if folder is None:
        pytest.skip("run: lalia fetch smollm2-135m-instruct")
    backbone = HF.Config("smollm2-135m-instruct").build()
    assert isinstance(backbone.model, Transformer)
    return Learned(Spelling([], "smollm2-135m-instruct", backbone.dim), backbone.model)


def test_who_asks_a_machine_is_told_from_who_talks_to_others(learned: Learned) -> None:
    asked = [learned(said(question.text)).addressed for question in questions()]
    assert fmean(asked) > 0.9
    asides = """Mom, where are my keys?|Have you fed the dog yet, Tom?|I told you, she is not coming.|Dinner is ready.|
        The old man closed the book and looked at the fire.|Sorry, I'm on the phone.|Did you lock the door, honey?|
        Police are still looking for the driver.|He said they would sell the house in spring.|See you at six, bye."""
    assert fmean(learned(said(aside.strip())).addressed for aside in asides.split("|")) <= 0.1
    assert learned(said("Where is Paris?")).score > learned(said("Mom, where are my keys?")).score + 0.5


def test_what_was_not_understood_asks_nobody(learned: Learned) -> None:
    question = said("What is the capital of France?")
    assert learned(question).addressed
    assert learned(replace(question, understood=False)) == Verdict(False, 0.0, question.text)
    assert learned(said(" ?!")) == Verdict(False, 0.0, " ?!")


def test_the_lm_itself_stays_what_it_was() -> None:
    lm = Transformer.Config(num_layers=20, num_heads=2, dim=16).build().eval()
    before = lm(torch.ones(1, 3, 16))
    learned = Learned(Spelling([], "bytes", 16), lm, weights=None)
    assert learned.features("Who?").shape == (32,)
    assert len(lm.layers) == 20
    assert torch.equal(lm(torch.ones(1, 3, 16)), before)
    with pytest.raises(ConfigError, match="576 dimensions of an LM who is asked, not 16"):
        Learned(Spelling([], "bytes", 16), lm)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="phrases of letters"):
        WakeWord(["?!"])
    with pytest.raises(ConfigError, match="phrases of letters"):
        WakeWord([])
    with pytest.raises(ConfigError, match="0 to 1"):
        WakeWord.Config(farthest=1.0)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Near.Config(threshold=0.0)


def test_a_model_gives_the_judges_that_are_asked_for() -> None:
    model = tiny_mini()
    assert model.addressee() is None
    silent = said("Hey Lalia, where is Paris?")
    for whom, addressed in (({"wake": ["hey lalia"]}, True), ({"near": True, "wake": ["hey lalia"]}, False)):
        judge = model.addressee(**whom)  # type: ignore[arg-type]
        assert judge is not None
        assert judge(silent).addressed == addressed
    one, other = (model.addressee(near=True) for _ in range(2))
    assert isinstance(one, Every)
    assert isinstance(other, Every)
    assert one.judges[0] is not other.judges[0], "each remembers who talks in its own session"
    mute = Model(find("mini-gslm").tiny())
    with pytest.raises(ConfigError, match="cannot tell who is asked"):
        mute.addressee(asked=True)
