"""Listening: what a recipe's streams hold of a recording, of its text, and of one another."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.recipe import Stream, slices_of
from lalia.streams import Discrete, Streams, TokenSequence
from lalia.tokenizers import Durations, Letters, Phones, States, Text, align_text, pool_by_runs

__all__ = ["Listener"]

Words = Sequence[tuple[str, float, float]]


class Listener:
    """Makes the streams of a recipe, each from what it is made of.

    :param streams: of the recipe.
    :param tokenizer: gives the tokenizer of a stream by name.
    """

    def __init__(self, streams: Mapping[str, Stream], tokenizer: Callable[[str], Any]) -> None:
        self.streams, self.tokenizer = dict(streams), tokenizer

    def ordered(self, names: Iterable[str]) -> list[str]:
        """The streams and those that they are made along, each behind the one that it needs."""
        out: dict[str, None] = {}

        def add(name: str) -> None:
            stream = self.streams[name]
            for other in (stream.per_run_of, stream.aligned_to):
                if other is not None:
                    add(other)
            out.setdefault(name)

        for name in names:
            add(name)
        return list(out)

    def hear(
        self,
        sounds: Mapping[str | None, Audio],
        names: Iterable[str] | None = None,
        *,
        text: str | None = None,
        words: Words | None = None,
        phones: Words | None = None,
        levels: Mapping[str, float] | None = None,
    ) -> Streams:
        """Streams of one row.

        :param sounds: of each channel of the recipe [1, 1, N].
        :param names: which streams; all when not given. Those that they are made along come with them.
        :param text: of the model's own channel.
        :param words: its words with their times, for streams that keep time.
        :param phones: its phonemes with their times, for streams of these.
        :param levels: of the speaker, for streams that are relative to one; that of the recording when not given.
        :raises DataError: a stream needs a text or its times, and there is none.
        """
        made: Streams = {}
        codes: dict[tuple[Any, str | None], TokenSequence] = {}
        for name in self.ordered(self.streams if names is None else names):
            stream = self.streams[name]
            tokenizer = self.tokenizer(name)
            if isinstance(tokenizer, Letters):
                if text is None:
                    raise DataError(
                        f"Stream {name!r} needs the text of the recording, and there is none. Transcribe it."
                    )
                made[name] = tokenizer.encode(text)
                continue
            if isinstance(tokenizer, Phones):
                if phones is None:
                    raise DataError(f"Stream {name!r} needs phones with their times, and there are none. Align them.")
                made[name] = tokenizer.encode(phones, sounds[stream.channel].seconds)
                continue
            if isinstance(tokenizer, Text):
                made[name] = self._text(name, stream, tokenizer, made, text, words)
                continue
            if isinstance(tokenizer, States):
                assert stream.aligned_to is not None
                made[name] = tokenizer.along(made[stream.aligned_to])
                continue
            if isinstance(tokenizer, Durations):
                assert stream.per_run_of is not None
                made[name] = tokenizer.per_run(made[stream.per_run_of])
                continue
            key = (stream.tokenizer, stream.channel)
            if key not in codes:
                # Streams that are slices of one tokenizer's codebooks hear once.
                level = {"level": levels[name]} if levels and name in levels else {}
                codes[key] = tokenizer.encode(_at(sounds[stream.channel], tokenizer.sample_rate), **level)
            tokens = stream.take(codes[key])
            if stream.per_run_of is not None:
                units = made[stream.per_run_of]
                pooled = getattr(tokenizer, "pooled", pool_by_runs)
                tokens = pooled(tokens, units)
            made[name] = tokens
        return made

    def _text(
        self, name: str, stream: Stream, tokenizer: Text, made: Streams, text: str | None, words: Words | None
    ) -> TokenSequence:
        if stream.text is not None:
            return tokenizer.encode(stream.text, special=True)
        if stream.aligned_to is not None:
            if words is None:
                raise DataError(f"Stream {name!r} keeps time with speech, but its words have no times. Align them.")
            return align_text(tokenizer, words, int(made[stream.aligned_to].lengths[0]))
        text = _needed(name, text)
        if words is None:
            return tokenizer.encode(text)
        # When each token is said: its word's time, for layouts that go by times.
        pieces = tokenizer.encode_words([word for word, *_ in words])
        ids = torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.long)
        times = [t for (_, t, _), piece in zip(words, pieces, strict=True) for t in [t] * len(piece)]
        return TokenSequence(ids[None, None], torch.tensor([len(ids)]), times=torch.tensor(times)[None])

    def join(self, made: Streams, wanted: Sequence[str]) -> Streams:
        """``made`` with the streams that are ``wanted`` and whose codebooks are spread over several others.

        :raises ConfigError: there is neither the stream nor all of its parts.
        """
        out = dict(made)
        for name in wanted:
            if name in out:
                continue
            known = name in self.streams
            kind = self.streams[name].spec.kind if known else None
            found = [made[n] for n in slices_of(self.streams, name) if n in made] if known else []
            if not isinstance(kind, Discrete) or sum(t.values.shape[1] for t in found) != kind.num_codebooks:
                raise ConfigError(f"The stream {name!r} is not there, and nothing that it could be made of. Make it.")
            shortest = min(t.num_tokens for t in found)
            lengths = torch.stack([t.lengths for t in found]).amin(dim=0)
            out[name] = TokenSequence(torch.cat([t.values[:, :, :shortest] for t in found], dim=1), lengths)
        return out


def _needed(stream: str, text: str | None) -> str:
    if text is None:
        raise DataError(f"Stream {stream!r} needs the text of the recording, and there is none. Transcribe it.")
    return text


def _at(audio: Audio, sample_rate: int) -> Audio:
    return audio if audio.sample_rate == sample_rate else audio.to(sample_rate)
