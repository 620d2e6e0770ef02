"""A recipe with its parts: what a user holds."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lalia.audio import Audio, AudioLike
from lalia.checkpoints.hub import name_of
from lalia.device import give_back
from lalia.errors import CheckpointError, ConfigError
from lalia.listening import Listener
from lalia.lm import Sampler, Sampling, SpeechLM
from lalia.model import words
from lalia.model.addressing import addressee, learned
from lalia.model.continuation import Continuation, Speaker, continue_speech
from lalia.model.dialogue import Dialogue, Event
from lalia.model.duplex import duplex_lm, duplex_session
from lalia.model.held import HeldTokenizers
from lalia.model.merged import on_the_clock
from lalia.model.mixed import Part, go_on_by_turns, one_after_another, text_beside, together
from lalia.model.scoring import Scores, judge_of, score, score_rows
from lalia.model.speaking import Reply, answer, go_on, text_of
from lalia.model.text_lm import with_text_lm
from lalia.model.voices import find_voice
from lalia.model.weights import TOKENIZERS, assign_tensors, load_tensors, split_tensors, tensors_of
from lalia.nn.half import halve_
from lalia.nn.int8 import quantize_
from lalia.published import Published, recognise
from lalia.realtime import Activity, Addressee, DuplexSession, Patience, TurnSession
from lalia.realtime.ends import Ends
from lalia.recipe import Recipe, build_lms
from lalia.store import DESCRIPTION, matches, read_description, read_weights, write_description, write_weights
from lalia.streams import Streams, TokenSequence, nothing
from lalia.tokenizers import Letters
from lalia.vocoders import Chain, CodecDecoder, Vocoder

__all__ = ["Model"]

_PIECE_SECONDS = 120.0
"""Sound is encoded in pieces of this length, where it is longer than a few of them."""

_LONGEST_SECONDS = 600.0


class Model:
    """A recipe with its parts.

    :param recipe: what it is.
    :param learned: weights of its tokenizers, by stream (``Model.load`` gives them).
    :param identities: SHA-256 of the tokenizers with which it was trained.
    :param lms: its language models, where they are built already.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        learned: Mapping[str, Mapping[str, Tensor]] | None = None,
        identities: Mapping[str, str] | None = None,
        lms: nn.ModuleDict | None = None,
    ) -> None:
        self.recipe = recipe
        self.specs = recipe.specs
        self.fetched: tuple[str, ...] = ()
        """Patterns of weights that are not saved, for they are as others published them."""
        self.lms = build_lms(recipe) if lms is None else lms
        self.vocoder: Vocoder | None = recipe.vocoder.build(self.specs) if recipe.vocoder is not None else None
        self.tokenizers = HeldTokenizers(recipe.streams, learned=learned, identities=identities)
        if self.vocoder is not None:
            self.vocoder.adopt(self.tokenizers.learned_of_all)
        self.module.eval()
        self._warm = False

    def __repr__(self) -> str:
        return f"Model({self.recipe.name!r}, {sum(p.numel() for p in self.module.parameters()) / 1e6:.1f} M parameters)"

    # -- storing -------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        trust: tuple[str, ...] = (),
        lm: str | None = None,
    ) -> "Model":
        """A model that ``save`` wrote, or one that others published in a form that lalia knows.

        :param lm: a text LM in place of its own: known weights, a directory or a hub id (see ``with_text_lm``).
        :raises CheckpointError: the directory is not a model, incomplete, or of another version.
        :raises WeightsError: it is a published one, but damaged, or a variant that lalia does not know.
        """
        folder = Path(folder)
        if not (folder / DESCRIPTION).is_file():
            published = recognise(folder)
            if published is not None:
                return cls._load_published(folder, published, device, dtype)
        recipe, more = read_description(folder, "recipe", trust=trust)
        if not isinstance(recipe, Recipe):
            raise CheckpointError(f"{folder / DESCRIPTION} holds no recipe. Name the directory of a model.")
        tensors, learned = split_tensors(read_weights(folder))
        fetched = tuple(more.get("fetched", ()))
        if lm is not None:
            recipe, own = with_text_lm(recipe, lm), f"lms.{recipe.talk.lm if recipe.talk else ''}."
            tensors = {n: t for n, t in tensors.items() if not n.startswith(own)}
            fetched = (*fetched, own + "*")
        model = cls(recipe, learned=learned, identities=more.get("tokenizers", {}))
        model.fetched = fetched
        load_tensors(model.module, tensors, str(folder), fetched=model.fetched)
        model.module.to(device=device, dtype=dtype).eval()
        return model

    @classmethod
    def _load_published(
        cls, folder: Path, published: Published, device: str | torch.device, dtype: torch.dtype
    ) -> "Model":
        name = name_of(folder)
        recipe = published.recipe(folder, name)
        whole = nn.Module()
        with torch.device("meta"):
            whole.lms = lms = build_lms(recipe)
        try:
            tensors = published.tensors(folder)
        except RuntimeError as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise CheckpointError(
                f"{folder} has weights of other sizes than it says ({reason}). Fetch it again."
            ) from None
        assign_tensors(whole, tensors, str(folder), device=device, dtype=dtype)
        model = cls(recipe, lms=lms)
        model.take_decoders()
        model.module.to(device=device, dtype=dtype).eval()
        if lacking := published.missing(name):
            warnings.warn(lacking, stacklevel=3)
        return model

    def save(
        self, folder: str | Path, *, dtype: torch.dtype | None = None, fetched: Sequence[str] | None = None
    ) -> None:
        """Write the model as a directory.

        :param dtype: of floating-point parameters on disk; as they are when not given. Statistics, and what the
            tokenizers learned, keep their precision: a rounded tokenizer would be another one.
        :param fetched: fnmatch patterns of weights that are as others published them: ``load`` fetches these anew, by
            the recipe. Those that the model itself was loaded without when not given.
        """
        folder = Path(folder)
        self.fetched = self.fetched if fetched is None else tuple(fetched)
        parameters = {name for name, _ in self.module.named_parameters()}
        tensors = {
            n: t.to(dtype) if dtype is not None and n in parameters else t
            for n, t in tensors_of(self.module).items()
            if not matches(n, self.fetched)
        }
        tensors |= {f"{TOKENIZERS}{s}.{n}": t for s, part in self.learned.items() for n, t in part.items()}
        write_weights(folder, tensors)
        # The description last: a directory without it is not taken for a model.
        more = {"fetched": list(self.fetched)} if self.fetched else {}
        write_description(folder, "recipe", self.recipe, tokenizers=self.identities, **more)

    @cached_property
    def module(self) -> nn.Module:
        """All trainable parts as one module, with the names that checkpoints use."""
        whole = nn.Module()
        whole.lms = self.lms
        if self.vocoder is not None:
            whole.vocoder = self.vocoder
        return whole

    def load_tensors(self, folder: str | Path) -> None:
        """Take the weights that ``save`` wrote for the same recipe.

        :raises CheckpointError: a tensor is missing, unknown or of another shape.
        """
        load_tensors(self.module, split_tensors(read_weights(Path(folder)))[0], str(folder), fetched=self.fetched)

    def quantize(self) -> None:
        """Put the language models into 8 bits, in place, for inference: a quarter of the memory; see ``quantize_``.

        :raises ConfigError: one has an adapter.
        """
        quantize_(self.lms)

    def compact(self) -> None:
        """Free what only training needs, in place: the same replies in half the memory, on a CPU; see ``halve_``.

        :raises ConfigError: a language model has an adapter.
        """
        halve_(self.module)
        give_back()

    # -- parts ---------------------------------------------------------------------------------

    @property
    def learned(self) -> dict[str, Mapping[str, Tensor]]:
        """What the tokenizers learned, by stream: once for all streams that share a tokenizer."""
        return self.tokenizers.learned

    @property
    def identities(self) -> dict[str, str]:
        """SHA-256 of the tokenizers with which the model was trained, by stream."""
        return self.tokenizers.identities

    def tokenizer(self, stream: str) -> Any:
        """The tokenizer of a stream; see ``HeldTokenizers``."""
        return self.tokenizers(stream)

    def take_decoders(self) -> None:
        """Give the vocoder the decoders of the codecs whose codes it reads.

        A codec may be fetched for it.

        :raises WeightsError: it cannot be had.
        :raises ConfigError: the vocoder is of another codec than its stream.
        """
        for part in () if self.vocoder is None else self.vocoder.modules():
            if isinstance(part, CodecDecoder):
                part.take(self.tokenizer(part.stream))

    @cached_property
    def listener(self) -> Listener:
        """What makes the streams of the recipe."""
        return Listener(self.recipe.streams, self.tokenizers)

    @property
    def speech_stream(self) -> str:
        """The stream of speech that the model reads and predicts; see ``Recipe.speech_stream``."""
        return self.recipe.speech_stream

    def voice(self, voice: int | str | None) -> int | None:
        """The number of a voice of the vocoder, given by number or by name.

        :raises ConfigError: there is none, or the model has no vocoder.
        """
        return find_voice(self.recipe, self._vocoder().num_speakers, voice)

    def hear(self, audio: AudioLike, *, seconds: float | None = None) -> Audio:
        """A recording as the speech tokenizer takes it: mono, at its rate, checked.

        :param seconds: the beginning alone; the rest of a file is not read.
        :raises AudioError: it cannot be read, or holds no speech.
        """
        rate = self.recipe.streams[self.speech_stream].sample_rate
        if isinstance(audio, str | Path):
            recording = Audio.load(audio, mono=True, sample_rate=rate, seconds=seconds, check=False)
            name = "standard input" if audio == "-" else str(audio)
            whole = seconds is None or recording.seconds < seconds
            recording.check(name if whole else f"{name}, in its first {seconds:g} s,")
            return recording
        assert rate is not None
        recording = Audio.of(audio).mono()
        if seconds is not None:
            recording = recording.cut(0.0, seconds)
        recording.check("the given recording")
        return recording.to(rate)

    def encode(self, audio: AudioLike) -> Streams:
        """The streams of a recording that the vocoder speaks; without a vocoder, the speech stream."""
        reads = () if self.vocoder is None else self._spoken(self.vocoder)
        if set(reads) <= {self.speech_stream}:
            return self._speech(audio)
        recording = self.hear(audio)
        heard = self.listener.hear({self.recipe.streams[s].channel: recording for s in reads}, reads)
        return {s: heard[s] for s in reads}

    def _spoken(self, vocoder: Vocoder) -> tuple[str, ...]:
        """The streams of a recording that a vocoder speaks: what it reads, or what it makes of a text."""
        if isinstance(vocoder, Chain) and any(
            isinstance(self.recipe.streams[s].tokenizer, Letters.Config) for s in vocoder.reads
        ):
            return vocoder.vocoder.reads
        return vocoder.reads

    def _speech(self, audio: AudioLike) -> Streams:
        """The speech stream of a recording of any length."""
        stream = self.speech_stream
        recording = self.hear(audio)
        tokenizer, own = self.tokenizer(stream), self.recipe.streams[stream]
        if len(recording) > 1 or recording.seconds <= 3 * _PIECE_SECONDS:
            return {stream: own.take(tokenizer.encode(recording))}
        # Features of an hour are a gigabyte; as a stream, the tokens are the same.
        state, pieces = tokenizer.init_state(1), []
        for i in range(count := int(recording.seconds // _PIECE_SECONDS)):
            piece = recording.cut(i * _PIECE_SECONDS, _PIECE_SECONDS if i < count - 1 else None)
            pieces.append(own.take(tokenizer.encode(piece, state, final=i == count - 1)))
        return {stream: _join(pieces)}

    def decode(self, streams: Streams, *, voice: int | str | None = None) -> Audio:
        """Sound of streams.

        :param voice: of the vocoder, by number or name; the first when not given.
        :raises ConfigError: the model has no vocoder, or not that voice.
        """
        vocoder, speaker = self._vocoder(), self.voice(voice)
        heard = self._spoken(vocoder)
        reads = heard if set(heard) <= streams.keys() else vocoder.reads
        whole = on_the_clock(self.listener.join(streams, reads), vocoder, self.specs)
        with torch.inference_mode():
            made = vocoder.decode({n: whole[n].to(_device(vocoder)) for n in reads}, speaker=speaker)
        return Audio(made.samples.cpu(), made.sample_rate, made.lengths.cpu())

    def _vocoder(self) -> Vocoder:
        if self.vocoder is None:
            raise ConfigError(f"Model {self.recipe.name!r} has no vocoder. Choose another model.")
        return self.vocoder

    def _lm(self, stream: str) -> SpeechLM:
        for lm in self.lms.values():
            assert isinstance(lm, SpeechLM)
            if stream in lm.heads and not set(lm.layout.streams) - {stream}:
                return lm
        raise ConfigError(
            f"Model {self.recipe.name!r} has no language model of {stream!r} alone. Choose another model."
        )

    # -- what it can do ------------------------------------------------------------------------

    def resynthesize(self, audio: AudioLike, *, voice: int | str | None = None) -> Audio:
        """To tokens and back: what the model hears, in its own voice."""
        self.voice(voice)
        return self.decode(self.encode(audio), voice=voice)

    def continue_(
        self,
        audio: AudioLike,
        *,
        prompt_seconds: float | None = 3.0,
        seconds: float = 10.0,
        temperature: float | None = None,
        seed: int = 0,
        sampler: Sampler | None = None,
        voice: int | str | None = None,
    ) -> Continuation:
        """Go on speaking where a recording stops.

        :param prompt_seconds: how much of the recording to listen to; all of it when None.
        :param seconds: how long to go on.
        :param temperature: of sampling; the recipe's when not given.
        :param sampler: all settings of sampling; the recipe's when not given.
        :param voice: of the vocoder, by number or name; the first when not given.
        :raises ConfigError: the model has no language model of speech, or no vocoder; a length out of range.
        """
        if not 0 < seconds <= _LONGEST_SECONDS:
            raise ConfigError(f"A continuation of {seconds} s was asked for. Ask for over 0 and at most 600.")
        if prompt_seconds is not None and not 0 < prompt_seconds <= _LONGEST_SECONDS:
            raise ConfigError(f"A prompt of {prompt_seconds} s was asked for. Give over 0 and at most 600.")
        speaker_number = self.voice(voice)
        if not self._textless:
            if sampler is not None:
                raise ConfigError(f"Model {self.recipe.name!r} has several streams. Give a temperature, no sampler.")
            return go_on(
                self,
                self.recording(audio, prompt_seconds),
                seconds=seconds,
                temperature=temperature,
                seed=seed,
                voice=speaker_number,
            )
        stream = self.speech_stream
        lm = self._lm(stream)
        sampler = sampler or lm.config.sampler
        if temperature is not None:
            settings = replace(sampler.of(stream), temperature=temperature)
            sampler = replace(sampler, streams={**sampler.streams, stream: settings})
        speaker = Speaker(
            lm,
            stream,
            self.specs[stream],
            lambda streams: self.decode(streams, voice=voice),
            self._predict_durations if hasattr(self._vocoder(), "predict_durations") else None,
        )
        prompt = self.hear(audio, seconds=prompt_seconds)
        return continue_speech(
            speaker, lambda: self._speech(prompt)[stream], seconds=seconds, sampler=sampler, seed=seed
        )

    @property
    def _textless(self) -> bool:
        """Whether one language model of one stream of speech is all there is."""
        lms = list(self.recipe.lms.values())
        return len(lms) == 1 and lms[0].layout.streams == (self.speech_stream,) and len(self.recipe.channels) == 1

    def recording(self, audio: AudioLike, seconds: float | None = None) -> Audio:
        """A recording, or its beginning, with the channels of the recipe, at the rate that it has, checked.

        :raises AudioError: it cannot be read, or is empty or silent.
        """
        if isinstance(audio, str | Path):
            recording = Audio.load(audio, seconds=seconds)
        else:
            recording = Audio.of(audio)
            recording = recording if seconds is None else recording.cut(0.0, seconds)
            recording.check("the given recording")
        return recording if len(self.recipe.channels) > 1 else recording.mono()

    def chat(
        self,
        audio: AudioLike,
        *,
        seconds: float = 10.0,
        temperature: float | None = None,
        seed: int = 0,
        voice: int | str | None = None,
        speak: bool = True,
    ) -> Reply:
        """An answer to a spoken question.

        :param seconds: the longest answer.
        :param speak: whether it is wanted as sound too.
        :raises ConfigError: the model listens to nobody; a length out of range.
        :raises AudioError: the question cannot be read, or holds no speech.
        """
        if not 0 < seconds <= _LONGEST_SECONDS:
            raise ConfigError(f"An answer of {seconds} s was asked for. Ask for over 0 and at most 600.")
        if self.recipe.talk is not None:
            talk = self.dialogue(seconds=seconds, temperature=temperature, seed=seed, voice=voice, speak=speak)
            return talk.answer(audio)
        number = self.voice(voice) if speak and self.vocoder is not None else None
        question = self.recording(audio).mono()
        return answer(self, question, seconds=seconds, temperature=temperature, seed=seed, voice=number, speak=speak)

    def dialogue(self, **settings: Any) -> Dialogue:
        """A conversation of turns; see ``Dialogue`` for its settings.

        :raises ConfigError: the model keeps none.
        """
        begun = Dialogue(self, **settings)
        if not self._warm:
            begun.warm_up()
            self._warm = True
            give_back()
        return begun

    def session(
        self,
        config: TurnSession.Config | None = None,
        *,
        activity: Activity | None = None,
        patience: Patience | None = None,
        addressee: Addressee | None = None,
        **settings: Any,
    ) -> TurnSession | DuplexSession:
        """A conversation in real time: pieces of sound come in, and what comes of them; see ``TurnSession``, and
        ``DuplexSession`` for models that hear and speak at once.

        :param config: without it, and without ``patience``, pauses are told from ends by words and sound (English).
        :param settings: of the conversation; see ``Dialogue``, and ``duplex_session``.
        :raises ConfigError: the model keeps no conversation; or it decides by itself when to speak, and is told how.
        :raises MissingDependency: nothing is installed that tells when somebody speaks.
        """
        if duplex_lm(self.recipe) is not None:
            told = {"config": config, "activity": activity, "patience": patience, "addressee": addressee}
            if given := [name for name, value in told.items() if value is not None]:
                raise ConfigError(
                    f"Model {self.recipe.name!r} decides by itself when it speaks, and was given {', '.join(given)}. "
                    "Leave it out."
                )
            return duplex_session(self, **settings)
        if config is None and patience is None:
            patience = Ends.at_hand()
        return TurnSession(self.dialogue(**settings), config, activity=activity, patience=patience, addressee=addressee)

    def addressee(self, *, near: bool = False, asked: bool = False, wake: Sequence[str] = ()) -> Addressee | None:
        """Whom a session is to answer, for one session: who passes all that is asked for; everybody (None) by default.

        :param near: who speaks close to the microphone (``Near``).
        :param asked: what is asked of an assistant, not what people tell others (``Learned``).
        :param wake: who calls it by one of these names (``WakeWord``).
        :raises ConfigError: the model has not learned what is asked of an assistant.
        """
        return addressee(self, near=near, asked=asked, wake=wake)

    @cached_property
    def asked(self) -> Addressee:
        """Tells what is asked of an assistant.

        :raises ConfigError: the model has not learned to.
        """
        return learned(self)

    def stream_chat(self, audio: AudioLike, **settings: Any) -> Iterator[Event]:
        """An answer to a spoken question as it comes: what was heard, text, sound; see ``Dialogue.turn``.

        :raises ConfigError: the model keeps no conversation.
        """
        return self.dialogue(**settings).turn(audio)

    def say(self, text: str, *, voice: int | str | None = None) -> Audio:
        """A text, read out.

        :raises ConfigError: the model does not read letters, or has not that voice.
        :raises DataError: there is nothing to read out.
        """
        vocoder, number = self._vocoder(), self.voice(voice)
        return words.say(self, vocoder.reads, text, voice=number)

    def stream_say(self, text: str, *, voice: int | str | None = None) -> Iterator[Audio]:
        """A text, read out piece by piece; raises as ``say``, before the first piece."""
        vocoder, number = self._vocoder(), self.voice(voice)
        return words.stream_say(self, vocoder.reads, text, voice=number)

    def transcribe(self, audio: AudioLike, *, beams: int = 5) -> str:
        """What is said in a recording, as the model hears it.

        :param beams: transcripts that are followed at once, among which the language model has a say; 0 for the one
            that it answers to.
        :raises ConfigError: the model hears no words.
        :raises AudioError: the recording cannot be read, or is empty or silent.
        """
        return words.transcribe(self, audio, beams=beams)

    def _predict_durations(self, units: TokenSequence) -> Tensor:
        vocoder: Any = self.vocoder
        with torch.inference_mode():
            durations: Tensor = vocoder.predict_durations(units.to(_device(vocoder)))
        return durations.cpu()

    def score(self, audio: AudioLike) -> Scores:
        """How likely the language model finds a recording; see ``lalia.model.scoring.score``."""
        lm, names = self._judge
        return score(lm, self._heard_as(audio, names), specs=self.specs)

    def score_all(self, recordings: Sequence[AudioLike]) -> list[Scores]:
        """The same of several recordings at once: faster, and equal but for rounding."""
        lm, names = self._judge
        return score_rows(lm, [self._heard_as(audio, names) for audio in recordings], specs=self.specs)

    def score_parts(self, parts: Sequence[Part]) -> Scores:
        """How likely it finds recordings and texts one after another.

        :raises ConfigError: there is a text, and it does not read both by turns.
        """
        if not any(isinstance(part, str) for part in parts):
            return self.score(*together(parts))
        lm, _, _ = self._by_turns
        return score(lm, self._in_turn(parts), specs=self.specs)

    def continue_parts(
        self,
        parts: Sequence[Part],
        into: Literal["speech", "text"],
        *,
        tokens: int,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Audio | str:
        """What comes behind recordings and texts, without them.

        :param tokens: steps of the language model that are made.
        :param sampling: the recipe's when not given.
        :raises ConfigError: it does not read both by turns, or has no vocoder for what it is to say.
        """
        lm, names, written = self._by_turns
        opened = (written,) if into == "text" else names
        made = go_on_by_turns(lm, self._in_turn(parts), opened, steps=tokens, sampling=sampling, seed=seed)
        made = {s: made.get(s, nothing(self.specs[s])) for s in opened}
        return text_of(self, made) if into == "text" else self.decode(made)

    @property
    def _by_turns(self) -> tuple[SpeechLM, tuple[str, ...], str]:
        """The language model of speech and text, its streams of speech, and that of text."""
        lm, names = self._judge
        return lm, names, text_beside(self.recipe, lm)

    def _in_turn(self, parts: Sequence[Part]) -> Streams:
        _, names, written = self._by_turns

        def encode(part: Part) -> Streams:
            if isinstance(part, str):
                return {written: self.tokenizer(written).encode(part)}
            heard = self._heard_as(part, names)
            return {name: heard[name] for name in names}

        return one_after_another(parts, encode, (*names, written), self.specs)

    @cached_property
    def _judge(self) -> tuple[SpeechLM, tuple[str, ...]]:
        return judge_of(self.recipe, self.lms)

    def _heard_as(self, audio: AudioLike, names: Sequence[str]) -> Streams:
        if set(self._judge[0].layout.streams) == {self.speech_stream}:
            return self._speech(audio)
        recording = self.hear(audio)
        heard = self.listener.hear({self.recipe.streams[self.speech_stream].channel: recording}, names)
        # Nothing is written beside it.
        silent = {s: nothing(self.specs[s]) for s in self._judge[0].layout.streams if s in self.specs}
        return {**silent, **{name: heard[name] for name in names}}


def _device(module: nn.Module) -> torch.device:
    return next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def _join(pieces: list[TokenSequence]) -> TokenSequence:
    """Pieces of one row, one after another."""
    rows = [piece.row(0) for piece in pieces]
    durations = [row.durations for row in rows if row.durations is not None]
    return TokenSequence(
        torch.cat([row.values for row in rows], dim=2 if rows[0].discrete else 1),
        torch.stack([row.lengths for row in rows]).sum(0),
        torch.cat(durations, dim=1) if len(durations) == len(rows) else None,
    )
