"""Whether the user has said what he had to say, by how it sounds and by its words; and how long to wait if he has not.

Silence alone cannot tell a pause within a turn from its end. A session that has such a judge asks it when a pause
begins; it is nothing to ask with every piece of sound.
"""

import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.checkpoints import fetch
from lalia.checkpoints.cache import cached
from lalia.checkpoints.known import KNOWN
from lalia.errors import ConfigError, MissingDependency
from lalia.nn.whisper import WhisperMel

__all__ = ["Eagerness", "Ends", "SmartTurn", "SoundJudge", "Words"]

Eagerness = Literal["low", "medium", "high", "auto"]
"""How soon a session answers somebody who may not be done, as OpenAI's ``semantic_vad`` has it."""

_MOST = {"low": 8.0, "medium": 4.0, "high": 2.0, "auto": 4.0}
"""Seconds of silence after which he is done whatever he said."""


class SoundJudge(Protocol):
    """Tells by the sound of a turn how likely it is over."""

    def __call__(self, samples: Tensor) -> float:
        """The probability that a turn [N] at 16 kHz is over; the silence behind it is part of it."""
        ...


class SmartTurn:
    """Smart Turn 3.2 (Daily, BSD-2-Clause): the encoder of Whisper tiny that learned how turns end, by their prosody.

    It hears the last 8 s of a turn and about 0.2 s of the silence behind it, as in its training; one call is 45 ms of
    work on one CPU thread. The longer the silence, the surer it is that the turn is over: of 40 questions and these
    cut off, it tells one from the other best at 0.2 s, and hardly at 1 s.

    :raises MissingDependency: onnxruntime is not installed.
    :raises WeightsError: the weights cannot be had.
    """

    sample_rate, longest = 16_000, 128_000
    """Hz, and the samples that it hears at most."""

    def __init__(self) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependency("onnxruntime", "vad") from None
        options = onnxruntime.SessionOptions()
        # One thread, so that it says the same each time and leaves the others to who hears and speaks.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        file = fetch("smart-turn") / "smart-turn-v3.2-cpu.onnx"
        self._network = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._mel = WhisperMel(80)

    @torch.inference_mode()
    def __call__(self, samples: Tensor) -> float:
        heard = samples.detach().float().cpu()[-self.longest :]
        # Silence goes before what is shorter, and counts in the mean and the variance.
        heard = F.pad(heard, (self.longest - len(heard), 0))
        heard = (heard - heard.mean()) / (heard.var(correction=0) + 1e-7).sqrt()
        (probability,) = self._network.run(None, {"input_features": self._mel(heard)[None].numpy()})
        return float(probability[0, 0])


@cache
def _smart_turn() -> SmartTurn | None:
    """One for all who ask, for it remembers nothing; None where it cannot run."""
    try:
        return SmartTurn()
    except MissingDependency:
        return None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DETERMINERS = _words("a an the my your our their its every each another this that these those some any no")
_CONJUNCTIONS = _words("and or but because if when while although unless until since than whether so as though whereas")
_PREPOSITIONS = _words(
    "of to in on at by for from with about into onto over under between through during without against among towards "
    "toward after before behind beyond like across along around upon via per plus minus times versus except"
)
_FILLERS = _words("um umm uh uhm uhh er erm err hm hmm mm mhm ah eh well")
_HUNGRY = _words(
    "very more most less least too how which whose please just also really let's i'm you're we're they're it's that's "
    "there's what's who's where's he's she's"
)
"""Others that something follows."""
_ENDING = _words("this that these those so some any too please more most less another")
"""Of determiners and the like, those that may end a sentence that is longer than themselves."""
_SUBJECTS = _words("i we they he she")
_PRONOUNS = _SUBJECTS | _words("you it this that these those there")
_BE = _words("is are was were am isn't aren't what's who's where's how's when's that's there's it's")
_HELP = _words("do does did don't doesn't didn't can could should would will can't may might must shall has have had")
_ASKING = _words("what who whom whose which when where why how")
_OPENINGS = _words("please ok okay so hey hi hello well um uh and excuse me tell say wonder i")
_GIVING = _words("tell give show teach play read send ask remind")
_TRANSITIVE = _GIVING | _words(
    "recommend explain describe suggest want need wonder wrote painted invented makes causes"
)
"""Verbs that want an object, and those of them that want more than "me"."""
_STRANDERS = _PRONOUNS | _words(
    "him her them me us you come comes came from made look looks looking talk talking listen listening wait waiting "
    "based known used go going think thinking thought afraid good famous out is are was live lives"
)
"""Behind what a question may end in a preposition: where are you from, what is it made of."""
_TRAILING = re.compile(r"(?:,|-|–|—|…|\.\.\.|:|;)\s*$")

_OVER = {"open": 0.02, "leaning": 0.1, "neither": 0.5, "closed": 0.8}


class Words:
    """How likely an English turn is over, by its words alone: nobody stops after "what is the".

    :meth:`judge` says which of four kinds a draft is: ``open`` ends in a word that another follows, in a comma or a
    filled pause; ``leaning`` may go on; ``closed`` is a whole question or sentence; ``neither`` tells nothing. Full
    stops and question marks tell nothing: recognisers write them behind anything.
    """

    def __call__(self, draft: str) -> float:
        """The probability that somebody is done who has said so much; 0.5 of nothing."""
        return _OVER[self.judge(draft)] if draft.strip() else 0.5

    def judge(self, draft: str) -> Literal["open", "leaning", "neither", "closed"]:
        """What kind of draft it is."""
        text = draft.strip().lower().replace("’", "'")
        words = re.findall(r"[a-z0-9']+", text)
        if not words:
            return "neither"
        if _TRAILING.search(text):
            return "open"
        last, before = words[-1], words[-2] if len(words) > 1 else ""
        asked = next((i for i, word in enumerate(words[:5]) if word in _ASKING or word in _BE | _HELP), len(words))
        # What goes before a question is not part of it: "please tell me", "hey".
        question = words[asked:] if all(word in _OPENINGS for word in words[:asked]) else []
        if last in _FILLERS and len(words) > 1:
            return "open"
        if last in _PREPOSITIONS:
            stranded = before in _STRANDERS or (last == "about" and len(question) > 3)
            return "neither" if question and stranded else "open"
        if last in _DETERMINERS | _CONJUNCTIONS | _HUNGRY:
            # "What is this", "who said that", "one or another": these end a sentence as well.
            return "neither" if (last in _ENDING and len(words) > 2) or last == "no" else "open"
        if last in _TRANSITIVE or (last == "me" and before in _GIVING):
            return "open"
        if question:
            return _judge_question(question)
        if last in _SUBJECTS or (last in _ASKING and before in _TRANSITIVE):
            return "open"
        if last in _BE and not _ASKING.intersection(words):
            return "open"
        return "closed" if len(words) > 3 else "neither"


def _judge_question(words: list[str]) -> Literal["open", "leaning", "neither", "closed"]:
    """Of a question without what goes before it."""
    last = words[-1]
    if last in _ASKING:
        return "neither" if last in ("why", "who", "what", "where", "when") else "open"
    verb = next((i for i, word in enumerate(words) if word in _BE | _HELP), None)
    if verb is None:
        # "Who wrote Hamlet" is one, "which planet" is none yet, and "how many" neither.
        return "leaning" if len(words) < 3 or (len(words) < 4 and words[0] != "who") else "neither"
    rest = words[verb + 1 :]
    if not rest:
        return "open"
    noun = rest[1:] if rest[0] in _DETERMINERS else rest
    if words[verb] in _HELP:
        # A verb is to follow whom it is about: "why do leaves", "how does a bicycle", "what should I".
        if len(noun) <= 1:
            return "open"
        return "open" if last in _SUBJECTS else "closed"
    if last in _SUBJECTS and verb == 0:
        return "open"
    if last.endswith("est") and rest[0] == "the" and len(noun) == 1:
        return "leaning"
    if verb == 0 and len(noun) <= 1:
        return "open"
    return "closed" if len(rest) > 2 else "neither"


class Ends:
    """How long to wait in silence before the user counts as done, by how likely it is that he is.

    Sound and words say so independently: the odds of both are multiplied, those of the sound to a power, as it is surer
    than it should be. Who is done for certain is waited for ``least`` seconds, who is not for the most that the
    eagerness allows, and all others for times between, on a logarithmic scale.

    Of the 40 spoken questions of ``lalia eval``, each also cut off once behind a word: a whole one waits 0.53 s (median
    0.30), and of those who pause for 0.6 s within one, 10 % are interrupted, of 1 s 22 %, all with ``auto``. With a
    fixed silence of 0.5 s all are. The power and the bias were fitted to other voices and texts; the rules of ``Words``
    were written with these questions in view, so that others may fare worse: of 68 such others, 19 and 22 %.

    :param sound: the judge of the sound; None for one by words alone.
    :param words: the judge of the words; None for one by the sound alone.
    """

    @dataclass(frozen=True)
    class Config:
        """
        :param eagerness: ``low`` waits 8 s at most, ``medium`` and ``auto`` 4 s, ``high`` 2 s.
        :param least: seconds of silence before anybody counts as done.
        :param ask: seconds of silence after which the judge is to be asked: sooner, there is nothing to be heard of the
            end, and later, Smart Turn takes the silence for the answer.
        """

        eagerness: Eagerness = "auto"
        least: float = 0.3
        ask: float = 0.2

        def __post_init__(self) -> None:
            if self.eagerness not in _MOST:
                raise ConfigError(f"There is no eagerness {self.eagerness!r}. Choose low, medium, high or auto.")
            if not 0 < self.ask <= self.least < self.most:
                raise ConfigError(
                    f"Ends asks after {self.ask} s of silence and waits for {self.least} to {self.most} s. "
                    "Give more than 0 s, and each no less than the one before."
                )

        @property
        def most(self) -> float:
            """Seconds of silence after which anybody counts as done."""
            return _MOST[self.eagerness]

    def __init__(
        self, config: Config | None = None, *, sound: SoundJudge | None = None, words: Words | None = None
    ) -> None:
        if sound is None and words is None:
            raise ConfigError("Ends has neither a judge of the sound nor one of the words. Give at least one.")
        self.config = config or self.Config()
        self.sound, self.words = sound, words

    @classmethod
    def at_hand(cls, config: Config | None = None) -> "Ends":
        """By words, and by the sound where its weights were fetched (``lalia fetch smart-turn``)."""
        return cls(config, sound=_smart_turn() if cached(KNOWN["smart-turn"]) is not None else None, words=Words())

    @property
    def after(self) -> float:
        """Seconds of silence after which it is to be asked."""
        return self.config.ask

    def __call__(self, samples: Tensor, draft: str) -> float:
        """Seconds of silence after which the user is done.

        :param samples: the turn so far [N] at 16 kHz, with ``Config.ask`` seconds of the silence behind it.
        :param draft: what was understood of it; "" where that is not known.
        """
        return self.seconds(self.probability(samples, draft))

    def probability(self, samples: Tensor, draft: str) -> float:
        """How likely the turn is over."""
        return self.combine(
            None if self.sound is None else self.sound(samples), None if self.words is None else self.words(draft)
        )

    def combine(self, sound: float | None, words: float | None) -> float:
        """The probability that is made of what the sound and the words say; None where one of them was not asked."""
        odds = 0.0
        if sound is not None:
            odds += _TRUST * _log_odds(sound) + _BIAS
        if words is not None:
            odds += _log_odds(words)
        return 1 / (1 + math.exp(-odds))

    def seconds(self, probability: float) -> float:
        """The silence to wait for, of a probability that the turn is over."""
        c = self.config
        sure = min(max((probability - _UNDONE) / (_DONE - _UNDONE), 0.0), 1.0)
        return c.most * (c.least / c.most) ** sure


_TRUST, _BIAS = 0.55, -2.0
"""The power of the odds of Smart Turn, and what is added to their logarithm, as ``runs/mini/ends.py`` fitted them."""
_UNDONE, _DONE = 0.1, 0.7
"""The probabilities up to which he is waited for longest, and from which on shortest."""


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-3), 1 - 1e-3)
    return math.log(p / (1 - p))
