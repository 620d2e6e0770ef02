"""The model that a user holds: load it, and ask it to continue, resynthesize or score.

Everything on the command line is a few lines over this.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lalia.audio import Audio, AudioLike
from lalia.config import Configuration
from lalia.errors import CheckpointError, ConfigError
from lalia.lm import Sampler, SpeechLM, collect
from lalia.recipe import Recipe
from lalia.store import DESCRIPTION, read_description, read_weights, write_description, write_weights
from lalia.streams import Streams, TokenSequence
from lalia.vocoders import Vocoder

__all__ = ["Continuation", "Model", "Scores", "bundled", "load", "load_tokenizer"]


@dataclass(frozen=True)
class Continuation:
    """Speech continued: ``audio`` is the prompt as the model says it, and what comes after ``prompt_seconds``."""

    audio: Audio
    prompt_seconds: float
    tokens: int
    timings: Mapping[str, float]


@dataclass(frozen=True)
class Scores:
    """Log-probabilities in nats.

    :param tokens: of the recording; the end of the sequence is not counted, for a clip may end anywhere.
    :param sum: over these tokens.
    :param end: of the sequence ending after them.
    """

    tokens: int
    sum: float
    end: float

    @property
    def mean(self) -> float:
        return self.sum / max(self.tokens, 1)


class Model:
    """A recipe with its parts.

    :param recipe: what it is.
    :param learned: weights of its tokenizers, by stream (``Model.load`` gives them).
    :param identities: SHA-256 of the tokenizers with which it was trained.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        learned: Mapping[str, Mapping[str, Tensor]] | None = None,
        identities: Mapping[str, str] | None = None,
    ) -> None:
        self.recipe = recipe
        self.specs = recipe.specs
        self.lms = nn.ModuleDict({name: config.build(self.specs) for name, config in recipe.lms.items()})
        self.vocoder: Vocoder | None = recipe.vocoder.build(self.specs) if recipe.vocoder is not None else None
        self.learned: dict[str, Mapping[str, Tensor]] = dict(learned or {})
        self.identities = dict(identities or {})
        self._tokenizers: dict[str, Any] = {}

    # -- storing -------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        trust: tuple[str, ...] = (),
    ) -> "Model":
        """A model that ``save`` wrote.

        :raises CheckpointError: the directory is not a model, incomplete, or of another version.
        """
        folder = Path(folder)
        recipe, more = read_description(folder, "recipe", trust=trust)
        if not isinstance(recipe, Recipe):
            raise CheckpointError(
                f"{folder / DESCRIPTION} holds a {type(recipe).__name__}. Name the directory of a model."
            )
        tensors = read_weights(folder)
        learned: dict[str, dict[str, Tensor]] = {}
        for name in [n for n in tensors if n.startswith("tokenizers.")]:
            _, stream, part = name.split(".", 2)
            learned.setdefault(stream, {})[part] = tensors.pop(name).float()
        model = cls(recipe, learned=learned, identities=more.get("tokenizers", {}))
        model.load_tensors({n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}, str(folder))
        model.module.to(device=device, dtype=dtype).eval()
        return model

    def save(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the model as a directory; floating-point weights as ``dtype``."""
        folder = Path(folder)
        tensors = {f"tokenizers.{s}.{n}": t for s, part in self.learned.items() for n, t in part.items()}
        write_weights(folder, {**self.tensors(), **tensors}, dtype=dtype)
        # The description last: a directory without it is not taken for a model.
        write_description(folder, "recipe", self.recipe, tokenizers=self.identities)

    @cached_property
    def module(self) -> nn.Module:
        """All trainable parts as one module, with the names that checkpoints use."""
        whole = nn.Module()
        whole.lms = self.lms
        if self.vocoder is not None:
            whole.vocoder = self.vocoder
        return whole

    def tensors(self) -> dict[str, Tensor]:
        """Weights by name; what is shared between parts is there once."""
        seen: set[int] = set()
        out = {}
        for name, t in self.module.state_dict(keep_vars=True).items():
            if isinstance(t, nn.Parameter):
                if id(t) in seen:
                    continue
                seen.add(id(t))
            out[name] = t.detach()
        return out

    def load_tensors(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """The inverse of ``tensors``.

        :raises CheckpointError: a tensor is missing, unknown or of another shape.
        """
        wanted = self.tensors()
        for name in wanted:
            if name not in tensors or tensors[name].shape != wanted[name].shape:
                got = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise CheckpointError(
                    f"{where} has {got} for {name!r}, but the recipe needs {tuple(wanted[name].shape)}. "
                    "It is of another model."
                )
        unknown = sorted(set(tensors) - set(wanted))
        if unknown:
            raise CheckpointError(f"{where} has weights {unknown[0]!r}, which the recipe does not know. Update lalia.")
        self.module.load_state_dict(dict(tensors), strict=False)

    # -- parts ---------------------------------------------------------------------------------

    def tokenizer(self, stream: str) -> Any:
        """The tokenizer of a stream, built at the first use (its encoder may have to be fetched).

        :raises CheckpointError: it is not the one with which the model was trained.
        """
        if stream not in self._tokenizers:
            tokenizer: Any = self.recipe.streams[stream].tokenizer.build()  # type: ignore[attr-defined]
            if stream in self.learned:
                tokenizer.load_weights(self.learned[stream])
            expected = self.identities.get(stream)
            if expected is not None and getattr(tokenizer, "identity", expected) != expected:
                raise CheckpointError(
                    f"The tokenizer of stream {stream!r} is {tokenizer.identity[:12]}, but the model was trained with "
                    f"{expected[:12]}. Fetch the encoder again."
                )
            self._tokenizers[stream] = tokenizer
        return self._tokenizers[stream]

    @property
    def speech_stream(self) -> str:
        """The stream of speech that the model's first language model reads and predicts."""
        for lm in self.lms.values():
            assert isinstance(lm, SpeechLM)
            for stream in lm.layout.streams:
                if stream in lm.heads and stream in self.recipe.streams and self._hears(stream):
                    return stream
        for stream in self.recipe.streams:
            if self._hears(stream):
                return stream
        raise ConfigError(f"Model {self.recipe.name!r} has no stream of speech. Choose another model.")

    def _hears(self, stream: str) -> bool:
        return hasattr(getattr(self.recipe.streams[stream].tokenizer, "owner", None), "fit") or hasattr(
            self.recipe.streams[stream].tokenizer, "encoder"
        )

    def encode(self, audio: AudioLike) -> Streams:
        """The speech stream of a recording."""
        stream = self.speech_stream
        return {stream: self.tokenizer(stream).encode(Audio.of(audio))}

    def decode(self, streams: Streams, *, voice: int | None = None) -> Audio:
        """Sound of streams.

        :raises ConfigError: the model has no vocoder.
        """
        if self.vocoder is None:
            raise ConfigError(f"Model {self.recipe.name!r} has no vocoder. Choose another model.")
        with torch.inference_mode():
            return self.vocoder.decode(streams, speaker=voice)

    # -- what it can do ------------------------------------------------------------------------

    def resynthesize(self, audio: AudioLike, *, voice: int | None = None) -> Audio:
        """To tokens and back: what the model hears, in its own voice."""
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
        voice: int | None = None,
    ) -> Continuation:
        """Go on speaking where a recording stops.

        :param prompt_seconds: how much of the recording to listen to; all of it when None.
        :param seconds: how long to go on.
        :param temperature: of sampling; the recipe's when not given.
        :raises ConfigError: the model has no language model of speech, or no vocoder.
        """
        if not 0 < seconds <= 600:
            raise ConfigError(f"A continuation of {seconds} s was asked for. Ask for more than 0 and at most 600.")
        if prompt_seconds is not None and prompt_seconds <= 0:
            raise ConfigError(f"A prompt of {prompt_seconds} s was asked for. Give more than 0.")
        started = time.perf_counter()
        prompt = Audio.of(audio)
        if prompt_seconds is not None:
            prompt = prompt.cut(0.0, prompt_seconds)
            prompt.check("the prompt")
        stream = self.speech_stream
        streams = self.encode(prompt)
        known = streams[stream]
        lm = self._lm(stream)
        encoded = time.perf_counter()
        rate = self.specs[stream].frame_rate
        assert rate is not None
        frames = known.lengths if known.durations is None else known.durations.sum(dim=1)
        heard = float(frames[0]) / rate
        per_token = heard / max(int(known.lengths[0]), 1)
        sampler = sampler or replace(lm.config.sampler, seed=seed)
        if temperature is not None:
            sampler = replace(sampler, default=replace(sampler.default, temperature=temperature))
        # An end would cut the answer short of what was asked for.
        end = self.specs[stream].kind.end_id  # type: ignore[union-attr]
        sampler = sampler.ban(**{stream: ((end, end + 1),)})
        made, total = known, heard
        while total < heard + seconds:
            wanted = max(round((heard + seconds - total) / per_token * 1.1), 8)
            new = collect(lm.generate({stream: replace(made, durations=None)}, sampler=sampler, max_steps=wanted))
            sampler = replace(sampler, seed=sampler.seed + 1)
            made = self._join(made, new[stream])
            frames = made.lengths if made.durations is None else made.durations.sum(dim=1)
            total = float(frames[0]) / rate
        generated = time.perf_counter()
        out = self.decode({stream: made}, voice=voice).cut(0.0, heard + seconds)
        return Continuation(
            out,
            heard,
            int(made.lengths[0] - known.lengths[0]),
            {
                "encode_seconds": encoded - started,
                "generate_seconds": generated - encoded,
                "vocode_seconds": time.perf_counter() - generated,
            },
        )

    def score(self, audio: AudioLike) -> Scores:
        """How likely the language model finds a recording."""
        stream = self.speech_stream
        tokens = self.encode(audio)[stream]
        log_prob = self._lm(stream).log_prob({stream: replace(tokens, durations=None)})[stream][0]
        n = int(tokens.lengths[0])
        end = float(log_prob[0, n]) if log_prob.shape[1] > n else 0.0
        return Scores(n * log_prob.shape[0], float(log_prob[:, :n].double().sum()), end)

    def _lm(self, stream: str) -> SpeechLM:
        for lm in self.lms.values():
            assert isinstance(lm, SpeechLM)
            if stream in lm.heads and not set(lm.layout.streams) - {stream}:
                return lm
        raise ConfigError(
            f"Model {self.recipe.name!r} has no language model of {stream!r} alone. Choose another model."
        )

    def _join(self, known: TokenSequence, new: TokenSequence) -> TokenSequence:
        """Known tokens and new ones, whose durations the vocoder predicts where the stream needs them."""
        values = torch.cat([known.values, new.values], dim=2)
        lengths = known.lengths + new.lengths
        if known.durations is None:
            return TokenSequence(values, lengths)
        predict = getattr(self.vocoder, "predict_durations", None)
        if predict is None:
            raise ConfigError(f"Model {self.recipe.name!r} cannot tell how long its units last. Train its vocoder.")
        with torch.inference_mode():
            durations = predict(TokenSequence(values, lengths))
        n = known.num_tokens
        return TokenSequence(values, lengths, torch.cat([known.durations, durations[:, n:].cpu()], dim=1))


def bundled() -> dict[str, Path]:
    """The models that come with lalia, by name: in the wheel, or in the checkout beside ``src``."""
    import lalia

    here = Path(lalia.__file__).resolve()
    found = {}
    for root in (here.parents[2] / "models", here.parent / "models"):
        if root.is_dir():
            found.update({p.parent.name: p.parent for p in sorted(root.glob(f"*/{DESCRIPTION}"))})
    return found


def find(name: str | Path) -> Path:
    """The directory of a model: a bundled name, or a path.

    :raises CheckpointError: there is no such model.
    """
    models = bundled()
    if str(name) in models:
        return models[str(name)]
    path = Path(name)
    if (path / DESCRIPTION).exists():
        return path
    if path.is_dir():
        raise CheckpointError(f"{path} has no {DESCRIPTION}. Name a directory that lalia wrote.")
    import difflib

    close = difflib.get_close_matches(str(name), models, n=1)
    hint = (
        f"Did you mean {close[0]!r}?"
        if close
        else f"Bundled are {', '.join(sorted(models)) or 'none'}; or name a path."
    )
    raise CheckpointError(f"There is no model {str(name)!r}. {hint}")


def load(name: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """A model by the name under which it is bundled, or from a directory.

    :raises CheckpointError: there is no such model, or it is damaged.
    """
    return Model.load(find(name), device=device, dtype=dtype)


def load_tokenizer(name: str | Path) -> Any:
    """A tokenizer: of a model (bundled or a directory), or one that was saved alone.

    :raises LaliaError: there is none by that name.
    """
    folder = find(name)
    try:
        config, more = read_description(folder, "tokenizer")
    except CheckpointError:
        model = Model.load(folder)
        return model.tokenizer(model.speech_stream)
    return open_tokenizer(config, read_weights(folder), more.get("identity"))


def save_tokenizer(tokenizer: Any, folder: str | Path) -> None:
    """Write a tokenizer alone: its configuration, what it learned, and its identity."""
    write_weights(Path(folder), tokenizer.weights())
    write_description(Path(folder), "tokenizer", tokenizer.config, identity=tokenizer.identity)


def open_tokenizer(config: Configuration, weights: Mapping[str, Tensor], identity: str | None) -> Any:
    """A tokenizer from its configuration and weights.

    :raises CheckpointError: it is not the one that was saved.
    """
    tokenizer: Any = config.build()  # type: ignore[attr-defined]
    tokenizer.load_weights(weights)
    if identity is not None and tokenizer.identity != identity:
        raise CheckpointError(
            f"The tokenizer is {tokenizer.identity[:12]}, but {identity[:12]} was saved. Fetch its encoder again."
        )
    return tokenizer
