"""Whether what was heard is for the machine: a session answers who speaks to it, and nobody else.

WavChat (arXiv:2411.13577, §IV-C) calls it interactive period recognition. Each judge says so of one utterance, by its
sound, by a name that it begins with, or by what it says.
"""

import math
import re
from collections import deque
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.checkpoints.tensors import Tensors
from lalia.errors import ConfigError
from lalia.nn.transformer import Transformer
from lalia.tokenizers.spelling import Spelling

__all__ = ["Addressee", "Every", "Learned", "Near", "Utterance", "Verdict", "WakeWord", "is_backchannel", "sounds_like"]

_SAMPLE_RATE = 16_000


@dataclass(frozen=True, eq=False)
class Utterance:
    """What somebody said, to whomever.

    :param samples: [N] at 16 kHz, with some of the silence around it.
    :param text: as it was understood.
    :param understood: whether it is likely to be what was said.
    :param since: seconds from the end of the last exchange to its beginning; inf before there was one.
    """

    samples: Tensor
    text: str
    understood: bool = True
    since: float = math.inf

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / _SAMPLE_RATE


@dataclass(frozen=True)
class Verdict:
    """What a judge says.

    :param addressed: whether it is to be answered.
    :param score: how sure that is, from 0 (it is not) to 1 (it is).
    :param text: what is to be answered: without a name by which the machine was called.
    """

    addressed: bool
    score: float
    text: str


class Addressee(Protocol):
    """Tells who is spoken to."""

    def __call__(self, utterance: Utterance) -> Verdict:
        """Whether an utterance is for the machine."""
        ...


class Every:
    """Several judges, who must all say yes: one after another, each of what the one before left of the text.

    :param judges: at least one. Who comes behind one that says no is not asked.
    """

    def __init__(self, *judges: Addressee) -> None:
        if not judges:
            raise ConfigError("Every has nobody to ask. Give at least one judge.")
        self.judges = judges

    def __call__(self, utterance: Utterance) -> Verdict:
        score = 1.0
        for judge in self.judges:
            verdict = judge(utterance)
            score, utterance = min(score, verdict.score), replace(utterance, text=verdict.text)
            if not verdict.addressed:
                break
        return Verdict(verdict.addressed, score, verdict.text)


_LISTENING = frozenset(
    """
    m mm mmm mh mhm hm hmm hmmm um uh huh uhuh ah aha oh ooh wow yeah yea yep yes yup right okay ok sure really true
    cool great nice good fine exactly indeed interesting i see got it of course all
    """.split()  # noqa: SIM905  a line a word would be fifty lines
)


def is_backchannel(text: str) -> bool:
    """Whether somebody who says this during a reply only shows that he listens: "mm-hm", "I see" (English)."""
    words = re.findall("[a-z]+", text.lower())
    return 0 < len(words) <= 4 and _LISTENING.issuperset(words)


# -- by its sound ----------------------------------------------------------------------------------

_HOP = 160
_FLOOR, _TOP = 0.05, 0.95
"""Quantiles of the level that count as the noise and as the loudest."""
_FAINT = -80.0
"""dBFS. What is fainter is no sound."""


@dataclass(frozen=True)
class Distance:
    """What the sound of an utterance tells of how far away it was said.

    :param level: of the speech, in dBFS.
    :param noise: of what is there between the words, in dBFS.
    :param decay: how fast it dies away, in dB per 10 ms: a room makes it slower.
    """

    level: float
    noise: float
    decay: float


def measure_distance(samples: Tensor) -> Distance | None:
    """The measures of samples [N] at 16 kHz; None where there is too little that could be speech."""
    if len(samples) < 20 * _HOP:
        return None
    # Below 200 Hz is much of the noise, and little that dies away.
    sound = samples.float() - F.avg_pool1d(samples.float()[None, None], 41, 1, 20)[0, 0]
    power = sound.unfold(0, 2 * _HOP, _HOP).square().mean(-1)
    levels = 10 * power.clamp(min=1e-12).log10()
    noise, top = (float(levels.quantile(q)) for q in (_FLOOR, _TOP))
    loud = levels > max(top - 20, noise + 3)
    if top < _FAINT or int(loud.sum()) < 8:
        return None
    level = 10 * math.log10(max(float(power[loud].mean()) - 10 ** (noise / 10), 1e-12))
    # The level falls from a vowel to the silence of a stop: in the open by 30 dB in 40 ms, in a room no faster than the
    # room itself. Where noise covers the end of a fall, it is not looked at.
    falls = (levels[:-4] - levels[4:]) / 4
    heard = (levels[:-4] > noise + 10) & (levels[:-4] > top - 15) & (levels[4:] > noise + 3)
    steep = falls[heard]
    decay = float(steep.quantile(0.95)) if len(steep) >= 8 else math.nan
    return Distance(level, noise, decay)


class Near:
    """Whether somebody speaks close by: as loud as the one who is talked with, out of the noise, and without a room.

    It learns how loud that one usually is from those utterances that it takes for his. Until there is one, only the
    noise and the room count. Of 125 people who read aloud in rooms that are made up, others than it was fitted to, it
    answers 99 % who are near and 2 % who are far, once it knows the usual level, and 90 and 3 % before. No real rooms
    were recorded for it.
    """

    @dataclass(frozen=True)
    class Config:
        """
        :param threshold: the score from which on somebody is near.
        :param memory: utterances from which the usual level is taken, the last ones.
        """

        threshold: float = 0.5
        memory: int = 8

        def __post_init__(self) -> None:
            if not 0 < self.threshold < 1 or self.memory < 1:
                raise ConfigError(
                    f"Near has a threshold of {self.threshold} and a memory of {self.memory}. "
                    "Give a probability between 0 and 1, and at least 1 utterance."
                )

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self._levels: deque[float] = deque(maxlen=self.config.memory)

    @property
    def usual(self) -> float | None:
        """The level of the one who is talked with, in dBFS; None as long as nobody was."""
        return sorted(self._levels)[len(self._levels) // 2] if self._levels else None

    def __call__(self, utterance: Utterance) -> Verdict:
        found = measure_distance(utterance.samples)
        if found is None:
            return Verdict(False, 0.0, utterance.text)
        score = self.score(found)
        if score >= self.config.threshold:
            self._levels.append(found.level)
        return Verdict(score >= self.config.threshold, score, utterance.text)

    def score(self, found: Distance) -> float:
        """The probability that somebody with these measures is near, from 0 to 1."""
        usual, weights = self.usual, _ALONE if self.usual is None else _BESIDE
        odds = weights["bias"] + weights["snr"] * (min(found.level - found.noise, _CLEAR) - _CLEAR)
        if not math.isnan(found.decay):
            odds += weights["decay"] * (found.decay - _DECAY)
        if usual is not None:
            odds += weights["fall"] * min(found.level - usual + _TOLERANCE, 0.0)
        return 1 / (1 + math.exp(-max(min(odds, 30.0), -30.0)))


_ALONE = {"bias": 1.32, "snr": 0.108, "decay": 2.91}
_BESIDE = {"bias": 1.67, "snr": 0.025, "decay": 1.91, "fall": 0.449}
"""Log-odds per dB, and per dB per 10 ms, before and after somebody was talked with: ``runs/mini/addressee.py near``."""
_CLEAR, _DECAY, _TOLERANCE = 40.0, 2.4, 6.0
"""dB out of the noise that are all one could wish for; the decay between near and far; dB that a voice may fall."""


# -- by a name -------------------------------------------------------------------------------------

_SPELLED = (
    (r"[^a-z ]", ""),
    (r"([a-z])\1+", r"\1"),
    (r"tch|ch|tj", "C"),
    (r"sh|sch", "S"),
    (r"th", "T"),
    (r"ph", "f"),
    (r"gh|h(?= |$)|(?<=[aeiouy])h(?![aeiouy])|(?<= )k(?=n)|^k(?=n)|b(?= |$)(?<=mb)", ""),
    (r"wh", "w"),
    (r"ck|q(?:u)?|c(?![eiy])", "k"),
    (r"c|z", "s"),
    (r"x", "ks"),
    (r"j|g(?=[eiy])", "J"),
    (r"(?<=[^ aeiouy])e(?= |$)", ""),
    (r"(?<=[a-zA-Z])y(?![aeiou])", "i"),
    (r"w(?![aeiouy])", "u"),
    (r"ee|ea|ie|ei(?= |$)|ey(?= |$)", "i"),
    (r"oo|ou|ow|ew", "u"),
    (r"ai|ay|ei|ey|eigh", "e"),
    (r"aw|au|oa", "o"),
)
"""English letters to rough phones, one rule after another: enough to compare names that a recogniser spells anyhow."""

_NEARLY = {frozenset(pair): 0.4 for pair in ("bp", "dt", "gk", "fv", "SC", "JC", "mn", "lr", "sS", "Td", "Ts", "Tf")}
_NEARLY |= {
    frozenset("yi"): 0.2,
    frozenset("wu"): 0.2,
    frozenset("ae"): 0.3,
    frozenset("ao"): 0.3,
    frozenset("ei"): 0.3,
}
_VOWELS = "aeiou"
_WEAK = _VOWELS + "hyw"


def _phones(text: str) -> str:
    made = text.lower()
    for pattern, phones in _SPELLED:
        made = re.sub(pattern, phones, made)
    return made.replace(" ", "")


def _swap(a: str, b: str) -> float:
    if a == b:
        return 0.0
    both = 0.5 if a in _VOWELS and b in _VOWELS else 1.0
    return _NEARLY.get(frozenset((a, b)), both)


def sounds_like(said: str, name: str) -> float:
    """How unlike two words or phrases sound: 0 the same, 1 entirely.

    A weighted edit distance (Levenshtein) between rough phones, per phone of the name. Vowels cost less than
    consonants, and neighbours such as b and p less than others.
    """
    x, y = _phones(said), _phones(name)
    costs = [0.0]
    for b in y:
        costs.append(costs[-1] + (0.5 if b in _WEAK else 1.0))
    whole = max(costs[-1], 0.5)
    for a in x:
        gone = 0.5 if a in _WEAK else 1.0
        row = [costs[0] + gone]
        for j, b in enumerate(y):
            added = 0.5 if b in _WEAK else 1.0
            row.append(min(costs[j] + _swap(a, b), costs[j + 1] + gone, row[j] + added))
        costs = row
    return min(costs[-1] / whole, 1.0)


class WakeWord:
    """Answers who calls it by a name, and for some seconds after an exchange, who does not.

    The name is looked for in what was understood, by how it sounds: recognisers have not read it, and spell it as
    what they have. Of 28 voices of Kokoro that say "hey lalia" or "lalia", mini's ears hear it in 22, and in none of
    3,000 questions, asides and sentences of prose.

    :param phrases: any of which calls it: ``("hey lalia", "lalia")``.
    """

    @dataclass(frozen=True)
    class Config:
        """
        :param seconds: after an exchange, within which it needs no name.
        :param farthest: how unlike a phrase may sound that still counts, see ``sounds_like``.
        :param anywhere: the name may come at any place of an utterance, not just at its beginning.
        """

        seconds: float = 8.0
        farthest: float = 0.25
        anywhere: bool = False

        def __post_init__(self) -> None:
            if self.seconds < 0 or not 0 <= self.farthest < 1:
                raise ConfigError(
                    f"A wake word has {self.seconds} s without one, and may sound {self.farthest} unlike. "
                    "Give no less than 0 s, and 0 to 1."
                )

    def __init__(self, phrases: Sequence[str], config: Config | None = None) -> None:
        self.config = config or self.Config()
        self.phrases = tuple(phrases)
        if not self.phrases or any(not _phones(phrase) for phrase in self.phrases):
            raise ConfigError(f"A wake word is one of {list(self.phrases)}. Give phrases of letters.")

    def __call__(self, utterance: Utterance) -> Verdict:
        found = self.find(utterance.text)
        if found is not None:
            distance, start, stop = found
            return Verdict(True, 1 - distance, _without(utterance.text, start, stop))
        recent = utterance.since <= self.config.seconds
        return Verdict(recent, float(recent), utterance.text)

    def find(self, text: str) -> tuple[float, int, int] | None:
        """Where a phrase comes first: how unlike it sounds, and from where to where it goes in the text."""
        words = [(m.start(), m.end()) for m in re.finditer(r"[^\W_]+(?:['’-][^\W_]+)*", text)]
        starts = range(len(words)) if self.config.anywhere else range(min(_BEFORE + 1, len(words)))
        best: tuple[float, int, int] | None = None
        for i in starts:
            if i and not self.config.anywhere and not all(text[a:b].lower() in _CALLS for a, b in words[:i]):
                break
            for phrase in self.phrases:
                for j in range(i, min(i + len(phrase.split()) + _SPLIT, len(words))):
                    start, stop = words[i][0], words[j][1]
                    distance = sounds_like(text[start:stop], phrase)
                    if distance <= self.config.farthest and (best is None or distance < best[0]):
                        best = distance, start, stop
        return best


_BEFORE, _SPLIT = 2, 2
"""Words that may come before a name that an utterance begins with, and into how many more it may be split."""
_CALLS = frozenset({"hey", "hi", "hello", "ok", "okay", "um", "uh", "so", "well", "please", "oh", "and", "yo"})


def _without(text: str, start: int, stop: int) -> str:
    """A text without a part of it, and without the comma that goes with that."""
    before, after = text[:start].rstrip(), re.sub(r"^[\s,.!?;:…-]+", "", text[stop:])
    if not _phones(before) or all(word in _CALLS for word in re.findall(r"\w+", before.lower())):
        return after[:1].upper() + after[1:]
    return f"{before.rstrip(',')} {after}".strip() if after else before.rstrip(",") + text[stop:].strip()[:1]


# -- by what it says -------------------------------------------------------------------------------

WEIGHTS = Path(__file__).with_name("addressee.safetensors")
"""Where what was learned is."""


class Learned:
    """Whether somebody asks a machine, by what he says: "where is Paris", and not "Mom, where are my keys".

    VITA (arXiv:2408.05211) has its LM write a token of its own for what is no query. Here mini's LM reads the words as
    it would to answer them, and a linear map tells by its hidden states in the middle (``runs/mini/addressee.py``).
    One call is 30 ms of work.

    It learned from typed texts alone. Of sentences that it did not learn from, read out in voices in which mini never
    heard anything, and understood, it answers 71 of 75 that are queries and 8 of 166 that are not; and 4 of 84 real
    people who read aloud. Layers and grammars were chosen with these in view, and both kinds of sentences are by one
    author: what people really say beside a machine was not to be had, and may be told less well.

    :param spelling: the embeddings of mini's LM: ``model.tokenizer("question").spelling``.
    :param lm: its layers: ``model.lms[model.recipe.talk.lm].backbone.model``.
    :param threshold: the score from which on it is a query.
    :raises WeightsError: the weights are not there, or damaged.
    :raises ConfigError: they are those of another LM.
    """

    def __init__(
        self, spelling: Spelling, lm: Transformer, *, threshold: float = 0.5, weights: Path | None = WEIGHTS
    ) -> None:
        self.spelling, self.threshold = spelling, threshold
        # The same layers, and no copy of them: all that comes behind would be work for nothing.
        self._half = copy(lm)
        self._half._modules = {**lm._modules, "layers": lm.layers[:_LAYERS], "norm": nn.Identity()}
        self.weight, self.bias = torch.zeros(2 * lm.dim), torch.zeros(())
        if weights is not None:
            tensors = Tensors([weights])
            self.weight, self.bias = tensors["weight"].float(), tensors["bias"].float()
            if len(self.weight) != 2 * lm.dim:
                raise ConfigError(
                    f"It was learned of {len(self.weight) // 2} dimensions of an LM who is asked, not {lm.dim}. "
                    "Give mini's."
                )

    @torch.inference_mode()
    def features(self, text: str) -> Tensor:
        """The hidden states of a text [2 D]: their mean and the last."""
        like = next(self._half.parameters())
        states = self._half(self.spelling.spell(text)[None].to(like))[0].float().cpu()
        return torch.cat([states.mean(0), states[-1]])

    def __call__(self, utterance: Utterance) -> Verdict:
        if not utterance.understood or not _phones(utterance.text):
            return Verdict(False, 0.0, utterance.text)
        score = float((self.features(utterance.text) @ self.weight + self.bias).sigmoid())
        return Verdict(score >= self.threshold, score, utterance.text)


_LAYERS = 14
"""Of the 30 of mini's LM: the states between are better to tell by than those at the end, and cost half."""
