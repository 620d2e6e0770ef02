"""Soft text: what a recogniser hears, as expectations of a text LM's own embeddings.

Shapes: B batch, S tokens, D dim of the LM, N samples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.encoders.beams import Reading, search
from lalia.encoders.recognizer import Recognizer
from lalia.encoders.transcripts import Transcript, most_tokens, read
from lalia.errors import ConfigError
from lalia.streaming import State
from lalia.streams import Continuous, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers.base import heard, identity_of
from lalia.tokenizers.pauses import cut_at_pauses, end_of_sound
from lalia.tokenizers.spelling import Spelling
from lalia.tokenizers.text import BYTES
from lalia.tokenizers.widths import width_of_text

__all__ = ["Heard", "SoftText", "SoftTextState"]

_TINY: Mapping[str, Any] = {
    "model_type": "whisper",
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "vocab_size": 99,
}
_TINY_DIM = 64

_PARTS = "encoder.", "decoder."
"""Of the recogniser, what may have learned."""

_BATCH = 8
"""Sounds that are read at once."""

_NOBODY, _DOUBT, _NONSENSE = 0.75, -0.6, -0.75
"""Of noise, hums, music and silence, the probability that nobody speaks was over 0.78 and the mean log-probability of
the words at most -0.7; of speech, also of half a second, under 0.7. Of 600 recordings, read and synthetic, with noise
of up to 5 dB more than the speech, 128 had a mean log-probability below -0.75: of three quarters of these most words
were wrong, and two were right. French is below -1.2.
"""

_DRAFTS = 5
"""Of what was heard for a draft, the part that is new when the next is made."""

_LM_WEIGHT = 0.1
"""Of an LM's log-probability beside the recogniser's: anything from 0.1 to 0.5 chose alike on synthetic speech."""


@dataclass(frozen=True, eq=False)
class Heard:
    """What was understood of a recording.

    :param text: as the recogniser writes it.
    :param embeddings: [S, D], what enters the LM.
    :param log_probs: [S'], of each token of the recogniser.
    :param no_speech: the probability that nobody speaks.
    :param looped: the recogniser went in circles, and was cut off.
    """

    text: str
    embeddings: Tensor
    log_probs: Tensor
    no_speech: float
    looped: bool = False

    @property
    def confidence(self) -> float:
        """The mean log-probability of its tokens; that of nothing is -inf."""
        return float(self.log_probs.mean()) if len(self.log_probs) else -torch.inf

    @property
    def understood(self) -> bool:
        """Whether it is likely to be what somebody said.

        It is not where there is no text, where the recogniser doubts both the words and that anyone speaks (as in
        arXiv:2212.04356 §4.5), where it guesses, and where it went in circles.
        """
        return bool(self.text) and _credible(self)


def _credible(read: "Heard | Transcript") -> bool:
    """Whether what was read is likely to have been said."""
    doubtful = read.no_speech > _NOBODY and read.confidence < _DOUBT
    return not doubtful and not read.looped and read.confidence > _NONSENSE


@dataclass(frozen=True, eq=False)
class _Line:
    """One row of a stream: the samples of the window that is open, and what was read of it and of those before."""

    samples: Tensor
    before: tuple[Transcript, ...] = ()
    draft: Transcript | None = None
    drafted: int = 0
    """Samples, up to the end of the sound, of which ``draft`` was made."""


@dataclass
class SoftTextState(State):
    """What each row has said so far."""

    lines: list[_Line]

    def select(self, rows: Tensor) -> "SoftTextState":
        return SoftTextState([self.lines[i] for i in rows.tolist()])

    def reset(self, fresh: "SoftTextState", rows: Tensor) -> "SoftTextState":
        return SoftTextState([(fresh if new else self).lines[b] for b, new in enumerate(rows.tolist())])


class SoftText(Configurable, nn.Module):
    """Speech as text that keeps its doubts, [B, S, D]: one embedding for each token that a recogniser writes.

    Whisper's decoder (arXiv:2212.04356) steps through the utterance. For each of its tokens, the stream holds the
    expectation of a text LM's input embeddings under the decoder's distribution, e = Σ_v p(v) Ē(v), where Ē(v) is the
    mean embedding of the LM's tokens that spell v. Words beyond doubt are the LM's own tokens. The LM reads it as if it
    were typed.

    Whisper hears 30 s at once, however short the sound: most of its work is silence. An encoder that learned to
    (``runs/mini/hearing.py``) hears only the sound and half a second of silence; see ``load_weights``.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param recognizer: known weights, a directory or a hub id of a Whisper.
        :param text: the LM whose embeddings these are: known weights, a directory or a hub id.
        :param context: what the recogniser hears at once: the sound as long as it is (``short``), once it has the
            weights that it takes for this, or what fills 30 s (``full``).
        :param silence: seconds of silence that are heard behind a short sound.
        :param longest: seconds of sound that are heard at once; what is longer is cut at pauses. Of eleven minutes of
            LibriSpeech in one piece, mini has 8.6 % of the words otherwise than Whisper-base with 12 s, 5.3 % with 16 s
            (the longest it learned from) and 12.9 % with 20 s.
        :param draft_every: seconds of new sound after which a stream makes a draft, at least.
        :param sure: the probability from which on a token is beyond doubt: words of such tokens enter as if typed. Of
            60 questions with a token under 0.6, many in noise, in voices of the training but of other words, mini
            answers 24 as if typed with 0.5, 28 with 0.35, 29 with 0.2 and 32 with 0: an LM as small as that takes
            mixed embeddings for words that nobody said.
        :param keep: likely tokens of each step over which the expectation goes.
        :param dim: D, where the name of the LM does not tell it.
        :param pretrained: load the weights; otherwise random ones of ``architecture``, the same each time.
        :param architecture: the recogniser's ``config.json`` as a mapping, for building it without weights.
        """

        recognizer: str = "whisper-tiny.en"
        text: str = "smollm2-135m-instruct"
        _: KW_ONLY
        context: Literal["short", "full"] = "short"
        silence: float = 0.5
        longest: float = 16.0
        draft_every: float = 0.6
        sure: float = 0.2
        keep: int = 64
        dim: int | None = None
        pretrained: bool = True
        architecture: Mapping[str, Any] | None = None

        def __post_init__(self) -> None:
            if not (self.longest > 0 and self.silence >= 0 and self.longest + self.silence <= 30):
                raise ConfigError(
                    f"SoftText hears {self.longest} s and {self.silence} s of silence at once. Whisper hears 30 s."
                )
            if self.keep < 1 or not self.draft_every > 0:
                raise ConfigError(
                    f"SoftText keeps {self.keep} tokens of a step and drafts every {self.draft_every} s. "
                    "Give at least 1, and more than 0 s."
                )

        @property
        def spec(self) -> StreamSpec:
            """What the stream holds, known without building anything."""
            return StreamSpec(kind=Continuous(self.dim or width_of_text(self.text)), frame_rate=None)

        def tiny(self) -> "SoftText.Config":
            """A random recogniser that writes characters, and random embeddings of these: the same each time."""
            name = self.recognizer if self.recognizer.startswith("tiny-") else f"tiny-{self.recognizer}"
            return replace(
                self, recognizer=name, text=BYTES, dim=_TINY_DIM, keep=8, pretrained=False, architecture=_TINY
            )

    def __init__(self, config: Config) -> None:
        """
        :raises WeightsError: the weights cannot be had.
        :raises ConfigError: the LM has embeddings of another width than the configuration says.
        """
        super().__init__()
        self.config, self.spec = config, config.spec
        self.recognizer: Recognizer = Recognizer.Config(
            config.recognizer, pretrained=config.pretrained, architecture=config.architecture
        ).build()
        self.sample_rate = self.recognizer.sample_rate
        wanted = config.dim or width_of_text(config.text)
        self.spelling = Spelling(self.recognizer.vocabulary(), config.text, wanted)
        if self.spelling.dim != wanted:
            raise ConfigError(
                f"{config.text!r} has embeddings of {self.spelling.dim} values, not {wanted}. "
                f"Set dim to {self.spelling.dim}."
            )
        self.fitted: tuple[str, ...] = ()
        self.requires_grad_(False).eval()

    # -- what it learned -----------------------------------------------------------------------

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the configuration, the recogniser's weights and the LM's embeddings."""
        tensors = {**self.weights(), "embeddings": self.spelling.matrix}
        return identity_of(self.config, tensors, recognizer=self.recognizer.fingerprint)

    def weights(self) -> dict[str, Tensor]:
        """What learned to hear short sounds, in half precision; nothing of a recogniser that was fetched."""
        return {n: p.half() for n, p in self.recognizer.learnable() if n.startswith(self.fitted)} if self.fitted else {}

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``weights``: from then on, a sound is heard as short as it is.

        :param tensors: of the encoder, or of encoder and decoder.
        :raises ConfigError: they are of another recogniser, or context is ``full``; nothing is changed then.
        """
        if self.config.context == "full":
            raise ConfigError("SoftText with context='full' hears as Whisper does. Set context='short' for weights.")
        parts = tuple(part for part in _PARTS if any(n.startswith(part) for n in tensors)) or _PARTS[:1]
        own = {n: p for n, p in self.recognizer.learnable() if n.startswith(parts)}
        for name in sorted(own.keys() | tensors.keys()):
            if name not in own or name not in tensors or tensors[name].shape != own[name].shape:
                raise ConfigError(f"SoftText got weights of another recogniser: {name!r} does not fit. Train it anew.")
        for name, parameter in own.items():
            # As they are stored, so that what is saved is what is heard.
            parameter.copy_(tensors[name].half())
        self.fitted = parts
        self.__dict__.pop("identity", None)

    # -- hearing -------------------------------------------------------------------------------

    def init_state(self, batch_size: int) -> SoftTextState:
        """Before the first sample of each row."""
        return SoftTextState([_Line(torch.zeros(0)) for _ in range(batch_size)])

    def encode(self, audio: Audio, state: SoftTextState | None = None, *, final: bool = False) -> TokenSequence:
        """
        :param audio: [B, C, N]; channels are averaged.
        :param state: where a stream stands, updated in place; None for whole recordings.
        :param final: no more audio follows. Before that a stream gives nothing, since what comes may change every word.
        :returns: [B, S, D].
        """
        found = self.hear(audio, state, final=final)
        if state is not None and not final:
            found = [replace(one, embeddings=one.embeddings[:0]) for one in found]
        return pad_batch([self.tokens_of(one) for one in found])

    def tokens_of(self, heard: Heard) -> TokenSequence:
        """The stream [1, S, D] of what was heard."""
        return TokenSequence(heard.embeddings[None], torch.tensor([len(heard.embeddings)]))

    @torch.inference_mode()
    def hear(self, audio: Audio, state: SoftTextState | None = None, *, final: bool = False) -> list[Heard]:
        """What each row says, with what tells whether it was understood; of a stream that goes on, a draft of it.

        A stream is read as it comes: a draft is made at every pause, and every ``draft_every`` seconds of sound, or a
        fifth of what is heard again for it, if that is more. So little is left to do at the end: nothing where only
        silence came since the draft, and else one pass of the encoder, and one of the decoder over all that the draft
        has right.

        :param audio, state, final: as for ``encode``.
        """
        audio = heard(audio, self.sample_rate, streaming=state is not None)
        rows = self._rows(audio)
        if state is None:
            return self._whole(rows)
        if len(state.lines) != len(rows):
            raise ConfigError(f"A stream of {len(state.lines)} rows got audio of {len(rows)}. Give one row each.")
        lines = [self._advance(line, new, final=final) for line, new in zip(state.lines, rows, strict=True)]
        state.lines = [_Line(torch.zeros(0)) for _ in lines] if final else lines
        return [self._join([*line.before, *([line.draft] if line.draft else [])]) for line in lines]

    @torch.inference_mode()
    def transcribe(
        self, audio: Audio, *, beams: int = 1, lm: Callable[[Sequence[str]], Sequence[float]] | None = None
    ) -> list[str]:
        """The text of each row.

        :param beams: transcripts that are followed at once; 1 is the text of what ``encode`` gives.
        :param lm: the log-probability of each of several texts, by a text LM, which then has a say in which of the
            transcripts of a beam it is.
        :raises ConfigError: there is an LM, but nothing to choose from.
        """
        if beams < 1 or (lm is not None and beams == 1):
            raise ConfigError(
                f"SoftText follows {beams} beams{' for an LM to choose from' if lm else ''}. Give more beams."
            )
        if beams == 1:
            return [one.text for one in self.hear(audio)]
        texts = []
        for row in self._rows(heard(audio, self.sample_rate, streaming=False)):
            found = [self._search(window, beams, lm) for window in self._windows(row)]
            texts.append(" ".join(text for text in found if text))
        return texts

    def _search(self, window: Tensor, beams: int, lm: Callable[[Sequence[str]], Sequence[float]] | None) -> str:
        most = most_tokens(len(window), self.sample_rate)
        readings = search(self.recognizer, self._listen(window), most, beams=beams)
        texts = [self.recognizer.spell(r.ids).strip() for r in readings]
        return texts[0] if lm is None else _choose(readings, texts, lm(texts))

    def _whole(self, rows: Sequence[Tensor]) -> list[Heard]:
        windows = [self._windows(row) for row in rows]
        flat = [w for parts in windows for w in parts]
        made: list[Transcript] = []
        for i in range(0, len(flat), _BATCH):
            made += self._read(flat[i : i + _BATCH])
        left = iter(made)
        return [self._join([next(left) for _ in parts]) for parts in windows]

    def _windows(self, row: Tensor) -> list[Tensor]:
        """What is heard at once of a recording [N], one after another: the silence behind each is left out."""
        pieces = cut_at_pauses(row, self._longest)
        return [piece[:end] for piece in pieces if (end := end_of_sound(piece))]

    def _advance(self, line: _Line, new: Tensor, *, final: bool) -> _Line:
        """A row of a stream after new samples [N]."""
        line = replace(line, samples=torch.cat([line.samples.to(new), new]))
        *closed, samples = cut_at_pauses(line.samples, self._longest) or [line.samples]
        for window in closed:
            line = self._redraft(line, window, end_of_sound(window))
            line = _Line(samples, (*line.before, *([line.draft] if line.draft else [])))
        line, end = replace(line, samples=samples), end_of_sound(samples)
        # Every draft hears all of the window: their number grows with its logarithm.
        due = end - line.drafted >= max(self.config.draft_every * self.sample_rate, end / _DRAFTS)
        return self._redraft(line, samples, end) if final or due or end < len(samples) else line

    def _redraft(self, line: _Line, window: Tensor, end: int) -> _Line:
        """With a draft of the first ``end`` samples of a window, if it has none of these yet."""
        if end == line.drafted:
            return line
        (draft,) = self._read([window[:end]], line.draft) if end else (None,)
        return replace(line, draft=draft, drafted=end)

    def _read(self, windows: Sequence[Tensor], draft: Transcript | None = None) -> list[Transcript]:
        sounds = [self._listen(w) for w in windows]
        most = [most_tokens(len(w), self.sample_rate) for w in windows]
        return read(self.recognizer, sounds, most, keep=self.config.keep, draft=draft.ids if draft else ())

    def _listen(self, window: Tensor) -> Tensor:
        silence = round(self.config.silence * self.sample_rate) if self.fitted else None
        return self.recognizer.listen(window, silence=silence)

    def _rows(self, audio: Audio) -> list[Tensor]:
        """The samples [N] of each row."""
        device = self.recognizer.forbidden.device
        return [audio.samples[b, 0, : int(audio.lengths[b])].to(device) for b in range(len(audio))]

    def _join(self, parts: Sequence[Transcript]) -> Heard:
        """Windows one after another as one; what was read where nobody speaks is left out, if anything else is left."""
        said = [p for p in parts if p.ids]
        said = [p for p in said if _credible(p)] or said
        sure = self.config.sure
        embeddings = [self.spelling.words(p.likely, p.log_probs, opening=i == 0, sure=sure) for i, p in enumerate(said)]
        return Heard(
            text=" ".join(text for p in said if (text := self.recognizer.spell(p.ids).strip())),
            embeddings=torch.cat([self.spelling.matrix.new_zeros((0, self.spelling.dim)).float(), *embeddings]),
            log_probs=torch.cat([torch.zeros(0), *(p.log_probs[:, 0].cpu() for p in said)]),
            no_speech=min((p.no_speech for p in parts), default=1.0),
            looped=any(p.looped for p in said or parts),
        )

    @property
    def _longest(self) -> int:
        return round(self.config.longest * self.sample_rate)


def _choose(readings: Sequence[Reading], texts: Sequence[str], scores: Sequence[float]) -> str:
    """The text that recogniser and LM together find likeliest."""
    totals = [r.log_prob + _LM_WEIGHT * float(score) for r, score in zip(readings, scores, strict=True)]
    return texts[max(range(len(totals)), key=totals.__getitem__)]
