"""Manner: how something is said, as words that ask a text LM to answer accordingly.

Shapes: B batch, S tokens, C manners, D dim of the LM, N samples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.encoders.delivery import Delivery, DeliveryMeter, DeliveryState
from lalia.errors import ConfigError
from lalia.streams import Continuous, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers.base import Fetched, heard, identity_of
from lalia.tokenizers.letters import Letters
from lalia.tokenizers.spelling import Spelling
from lalia.tokenizers.text import BYTES
from lalia.tokenizers.widths import width_of_text

__all__ = ["Manner"]

_TINY_DIM = 64


@dataclass(frozen=True)
class _Norm:
    """What a measure is when nothing is meant by it: normal, with a mean of each speaker's own.

    :param between: the standard deviation of the speakers' means (and of their microphones).
    :param within: that of a speaker's utterances.
    """

    mean: float
    between: float
    within: float

    def after(self, earlier: Sequence[float]) -> tuple[float, float]:
        """Mean and variance of what is to come from somebody of whom these are known: the posterior predictive."""
        known = [x for x in earlier if not math.isnan(x)]
        speaker, own = self.between**2, self.within**2
        if not known or not speaker:
            return self.mean, speaker + own
        weight = speaker / (speaker + own / len(known))
        return self.mean + weight * (sum(known) / len(known) - self.mean), own + speaker * (1 - weight)


_NORMS: Mapping[str, _Norm] = {
    "level": _Norm(-24.3, 5.0, 1.8),
    "rate": _Norm(0.0, 0.08, 0.13),
    "pitch": _Norm(7.4, 4.9, 1.8),
    "voicing": _Norm(0.84, 0.0, 0.10),
    "harmonicity": _Norm(0.64, 0.0, 0.09),
}
"""Of two phrases of each of 251 speakers, the rate of 145 phrases in all, as ``runs/mini/manner.py`` measures them; but
microphones at home differ more than the 2.8 dB of those recordings, which were levelled. Whether there is voice in
speech is not a matter of habit.
"""

_MANNERS: Mapping[str, Mapping[str, float]] = {
    "whispered": {"voicing": -0.25, "harmonicity": -0.2},
    "quiet": {"level": -15.0},
    "loud": {"level": 10.0},
    "slow": {"rate": math.log(0.67)},
    "fast": {"rate": math.log(1.35)},
    "high": {"pitch": 4.0},
    "low": {"pitch": -4.0},
}
"""By how much the mean of a measure is another in each: what a listener notices, and no more than twice that."""

_WORDS: Mapping[str, str] = {
    "whispered": "gently",
    "quiet": "gently",
    "loud": "calmly",
    "slow": "patiently",
    "fast": "briefly",
    "high": "cheerfully",
    "low": "kindly",
}


class Manner(Configurable, Fetched, nn.Module):
    """How something is said, as a request that is added to it [B, S, D]; nothing where it is said as usual.

    A text LM answers words. Told that somebody whispers, a small one talks about whispering; asked to answer gently, it
    does. So each manner has an adverb, and the stream holds the embeddings of " Please answer gently.", with the
    expectation of those of the adverbs under the probabilities of the manners, as ``SoftText`` has for words.

    A manner shifts the mean of one or two measures of ``Delivery``, which are normal with a variance between and within
    speakers (a linear discriminant). What somebody said before tells what is usual for him and his microphone.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param text: the LM whose embeddings these are: known weights, a directory or a hub id.
        :param request: what is added, with {} for the adverb.
        :param words: the adverb of each manner that is told; others count as usual.
        :param usual: the probability, before anything is heard, that nothing is meant by how something is said.
        :param sure: the probability from which on a manner is beyond doubt, and enters by its own word alone.
        :param dim: D, where the name of the LM does not tell it.
        """

        text: str = "smollm2-135m-instruct"
        _: KW_ONLY
        request: str = " Please answer {}."
        words: Mapping[str, str] = field(default_factory=lambda: dict(_WORDS))
        usual: float = 0.7
        sure: float = 0.9
        dim: int | None = None

        def __post_init__(self) -> None:
            unknown = sorted(self.words.keys() - _MANNERS.keys())
            if unknown or not self.words:
                raise ConfigError(
                    f"Manner has words for {unknown[0] if unknown else 'nothing'}. Choose of {', '.join(_MANNERS)}."
                )
            if self.request.count("{}") != 1:
                raise ConfigError(f"Manner asks {self.request!r}. Put one {{}} where the adverb belongs.")
            if not 0 < self.usual < 1:
                raise ConfigError(f"Manner takes {self.usual:g} of all for usual. Give a probability between 0 and 1.")

        @property
        def spec(self) -> StreamSpec:
            return StreamSpec(kind=Continuous(self.dim or width_of_text(self.text)), frame_rate=None)

        @property
        def sample_rate(self) -> int:
            """Of the sound that is measured, in Hz."""
            return 16000

        def tiny(self) -> "Manner.Config":
            """Random embeddings of bytes: the same each time."""
            return replace(self, text=BYTES, dim=_TINY_DIM)

    before: Tensor
    adverbs: Tensor
    after: Tensor

    def __init__(self, config: Config) -> None:
        """
        :raises WeightsError: the LM's embeddings cannot be had.
        """
        super().__init__()
        self.config, self.spec, self.sample_rate = config, config.spec, config.sample_rate
        self.meter = DeliveryMeter()
        self.names = tuple(config.words)
        before, after = config.request.split("{}")
        # A space belongs to the word behind it.
        gap = " " if before.endswith(" ") else ""
        adverbs = [gap + config.words[name] for name in self.names]
        spelling = Spelling(
            [before.removesuffix(" "), *adverbs, after], config.text, config.dim or width_of_text(config.text)
        )
        rows = [spelling.words(torch.tensor([[i]]), torch.zeros(1, 1), opening=False) for i in range(len(adverbs) + 2)]
        self._own = rows[1:-1]
        self.register_buffer("before", rows[0], persistent=False)
        self.register_buffer("adverbs", torch.stack([x.mean(0) for x in self._own]), persistent=False)
        self.register_buffer("after", rows[-1], persistent=False)
        self._letters: Letters = Letters.Config().build()

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the configuration and the embeddings."""
        return identity_of(self.config, {"before": self.before, "adverbs": self.adverbs, "after": self.after})

    # -- hearing -------------------------------------------------------------------------------

    def init_state(self, batch_size: int) -> DeliveryState:
        """Before the first sample of each row."""
        return self.meter.init_state(batch_size)

    def encode(self, audio: Audio, state: DeliveryState | None = None, *, final: bool = False) -> TokenSequence:
        """What is added to each row [B, S, D]; without its words, how fast it is said is not told.

        :param audio: [B, C, N]; channels are averaged.
        :param state: where a stream stands, updated in place; None for whole recordings.
        :param final: no more audio follows. Before that a stream gives nothing.
        """
        return pad_batch([self.tokens_of(one) for one in self.hear(audio, state, final=final)])

    def hear(
        self,
        audio: Audio,
        state: DeliveryState | None = None,
        *,
        final: bool = False,
        words: Sequence[str] | None = None,
    ) -> list[Delivery]:
        """How each row is said.

        :param audio, state, final: as for ``encode``.
        :param words: of each row, which tell how much was said in its time.
        """
        audio = heard(audio, self.sample_rate, streaming=state is not None)
        found = self.meter.measure(audio, state, final=final)
        texts = [""] * len(found) if words is None else words
        return [one.paced(self._count(text)) for one, text in zip(found, texts, strict=True)]

    def _count(self, text: str) -> int:
        """The letters of a text as it is read out."""
        return sum(c.isalpha() for c in self._letters.decode(self._letters.encode(text))[0])

    # -- meaning -------------------------------------------------------------------------------

    def probabilities(self, said: Delivery, earlier: Sequence[Delivery] = ()) -> Tensor:
        """That it is said as usual, and in each of the manners of ``names`` [1 + C].

        :param earlier: how the same speaker said other things.
        """
        prior = (1 - self.config.usual) / len(self.names)
        scores = [math.log(self.config.usual)]
        for name in self.names:
            score = math.log(prior)
            for measure, shift in _MANNERS[name].items():
                mean, variance = _NORMS[measure].after([getattr(e, measure) for e in earlier])
                beyond = getattr(said, measure) - mean
                # What could not be measured speaks for nothing.
                score += 0.0 if math.isnan(beyond) else shift * (beyond - shift / 2) / variance
            scores.append(score)
        return torch.tensor(scores, dtype=torch.float64).softmax(0).float()

    def tokens_of(self, said: Delivery, earlier: Sequence[Delivery] = ()) -> TokenSequence:
        """What is added [1, S, D]: nothing, where it is more likely than not that nothing is meant.

        :param earlier: how the same speaker said other things.
        """
        usual, *_ = chances = self.probabilities(said, earlier)
        if usual >= 0.5:
            return TokenSequence(self.before.new_zeros((1, 0, self.before.shape[1])), torch.tensor([0]))
        shares = chances[1:] / (1 - usual)
        likeliest = int(shares.argmax())
        certain = float(shares[likeliest]) >= self.config.sure
        adverb = self._own[likeliest] if certain else (shares.to(self.adverbs) @ self.adverbs)[None]
        tokens = torch.cat([self.before, adverb, self.after])
        return TokenSequence(tokens[None], torch.tensor([len(tokens)]))
