"""pGSLM's protocol: a model goes on with one prosodic stream of a recording, all else as it was recorded."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.evaluation.prosody.metrics import Sampled, consistency, correctness, expressiveness
from lalia.evaluation.statistics import Estimate
from lalia.lm import Sampler, SpeechLM, collect
from lalia.streams import Discrete, Streams, TokenSequence
from lalia.tokenizers import Durations, Pitch
from lalia.tokenizers.runs import frames_of, pool_by_runs

__all__ = ["KINDS", "Prosody", "ProsodyStreams", "Setting", "level_of", "prosody_figures", "sample_prosody"]


@dataclass(frozen=True)
class ProsodyStreams:
    """The streams of a language model that has units, their durations and their pitch, one of each per run.

    :param lm: name of the language model.
    """

    lm: str
    units: str
    durations: str
    pitch: str

    @classmethod
    def of(cls, model: Any) -> "ProsodyStreams":
        """Those of a model.

        :raises ConfigError: it has no language model of all three.
        """
        streams = model.recipe.streams
        for lm_name, lm in model.lms.items():
            if not isinstance(lm, SpeechLM):
                continue
            own = [s for s in lm.heads if s in streams]
            for units in own:
                beside = {type(streams[s].tokenizer): s for s in own if streams[s].per_run_of == units}
                if Durations.Config in beside and Pitch.Config in beside:
                    return cls(lm_name, units, beside[Durations.Config], beside[Pitch.Config])
        raise ConfigError(
            f"Model {model.recipe.name!r} has no language model of units with their durations and pitch (as pgslm "
            "has). Choose one."
        )


KINDS = ("pitch", "durations")

Prosody = Mapping[str, Sampled]
"""What was recorded and sampled of pitch and of durations (`KINDS`)."""


@dataclass(frozen=True)
class Setting:
    """How prompts are gone on with.

    :param prefix_frames: of units, at 50 Hz 3 s.
    :param samples: of each prompt.
    :param shortest: frames that a recording has at least to count for consistency.
    :param temperature: by kind; the recipe's sampling when not given. pGSLM's models were best at 0.25 for durations
        and 0.7 for F0.
    """

    prefix_frames: int = 150
    samples: int = 20
    shortest: int = 300
    temperature: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.prefix_frames < 1 or self.samples < 1 or self.shortest < 0:
            raise ConfigError(
                f"A prompt of {self.prefix_frames} frames, {self.samples} samples and {self.shortest} frames at least "
                "were asked for. Give 1 or more, 1 or more, and 0 or more."
            )
        if unknown := sorted(set(self.temperature) - set(KINDS)):
            raise ConfigError(f"A temperature is for {unknown[0]!r}. Give one for {' or '.join(KINDS)}.")


@dataclass(frozen=True)
class _Recorded:
    """A recording as its streams, and what is measured of it: values [T] per run, by stream."""

    streams: Streams
    values: Mapping[str, np.ndarray]
    prefix: int
    frames: int


def level_of(model: Any, recordings: Iterable[Audio]) -> float | None:
    """The mean log-F0 of a speaker, from his recordings (mono); None where the model's pitch is relative to nothing.

    :raises ConfigError: the model has no such streams.
    """
    tokenizer = model.tokenizer(ProsodyStreams.of(model).pitch)
    return float(tokenizer.level(recordings)) if tokenizer.by_speaker else None


def sample_prosody(
    model: Any, audio: Audio, setting: Setting, *, level: float | None = None, seed: int = 0
) -> tuple[Prosody, int]:
    """Go on with pitch and with durations of a recording, each in its turn.

    The units and the other of the two are those of the recording. Bins are compared as the values that they stand for,
    with the recording's own before it was put in bins. The prompt is of the runs that end within its frames: what the
    original does with one that goes on beyond them is not confirmed.

    :param model: of units, durations and pitch (`ProsodyStreams`).
    :param audio: mono.
    :param level: of its speaker (`level_of`); its own when not given.
    :param seed: of the first sample; others follow.
    :returns: with how many frames the recording has.
    :raises ConfigError: the model has no such streams, or the recording is no longer than the prompt.
    """
    names = ProsodyStreams.of(model)
    lm = model.lms[names.lm]
    streams = dict(zip(KINDS, (names.pitch, names.durations), strict=True))
    sampler = _sampler(lm, {streams[kind]: t for kind, t in setting.temperature.items()}, streams.values())
    recorded = _recorded(model, names, audio, level, setting.prefix_frames)
    found = {}
    for kind, stream in streams.items():
        drawn = _draw(lm, recorded, stream, setting.samples, sampler, seed)
        target = recorded.values[stream]
        found[kind] = Sampled(target[: recorded.prefix], target[recorded.prefix :], _values(model, stream, drawn))
    return found, recorded.frames


def prosody_figures(
    prompts: Sequence[tuple[Prosody, int]], setting: Setting, *, seed: int = 0
) -> dict[str, dict[str, Estimate]]:
    """Correctness, consistency and expressiveness of pitch and of durations; see `lalia.evaluation.prosody.metrics`.

    :param prompts: as `sample_prosody` gives them.
    :returns: by kind; ``recorded_consistency`` and ``recorded_expressiveness`` are of the recordings themselves.
    :raises DataError: there are no prompts.
    """
    found = {}
    for kind in KINDS:
        rows = [sampled[kind] for sampled, _ in prompts]
        long = [sampled[kind] for sampled, frames in prompts if frames >= setting.shortest]
        found[kind] = {
            "correctness": correctness(rows, seed=seed),
            "consistency": _alike(long, kind, seed),
            "expressiveness": expressiveness(rows, seed=seed),
            "recorded_consistency": _alike([_itself(p) for p in long], kind, seed),
            "recorded_expressiveness": expressiveness([_itself(p) for p in rows], seed=seed),
        }
    return found


def _itself(prompt: Sampled) -> Sampled:
    """As if the recording were what was sampled."""
    return Sampled(prompt.prefix, prompt.target, prompt.target[None])


def _alike(prompts: Sequence[Sampled], kind: str, seed: int) -> Estimate:
    if not prompts:
        return Estimate(math.nan, math.nan, math.nan, 0)
    return consistency(prompts, voiced=kind == "pitch", seed=seed)


def _sampler(lm: SpeechLM, temperature: Mapping[str, float], streams: Iterable[str]) -> Sampler:
    """The recipe's, that never ends: as many values are drawn as were recorded."""
    sampler = lm.config.sampler
    for stream in streams:
        kind = lm.specs[stream].kind
        settings = replace(sampler.of(stream), temperature=temperature.get(stream, sampler.of(stream).temperature))
        sampler = replace(sampler, streams={**sampler.streams, stream: settings})
        if isinstance(kind, Discrete):
            sampler = sampler.ban(**{stream: ((kind.end_id, kind.end_id + 1),)})
    return sampler


def _recorded(model: Any, names: ProsodyStreams, audio: Audio, own: float | None, prefix_frames: int) -> _Recorded:
    channel = model.recipe.streams[names.units].channel
    level = None if own is None else {names.pitch: own}
    wanted = (names.units, names.durations, names.pitch)
    heard = model.listener.hear({channel: audio}, wanted, levels=level)
    streams = {name: replace(heard[name], durations=None) for name in wanted}
    units = heard[names.units]
    assert units.durations is not None
    frames = units.durations[0, : int(units.lengths[0])]
    prefix = int((frames.cumsum(0) <= prefix_frames).sum())
    if not 0 < prefix < len(frames):
        raise ConfigError(
            f"It has {int(frames.sum())} frames, of which the prompt is to have {prefix_frames}. Give longer ones."
        )
    bins = model.tokenizer(names.pitch)
    # What the bins were made of: the same contour, without them.
    contour = replace(bins.config, clusters=None).build().to(_device(bins))
    exact = contour.encode(audio.to(contour.sample_rate), **({"level": level[names.pitch]} if level else {}))
    pitch = pool_by_runs(exact, units).values[0, :, 0].double().cpu().numpy()
    values = {names.pitch: pitch, names.durations: _values(model, names.durations, streams[names.durations])[0]}
    return _Recorded(streams, values, prefix, int(frames.sum()))


def _draw(lm: SpeechLM, recorded: _Recorded, stream: str, samples: int, sampler: Sampler, seed: int) -> TokenSequence:
    """What comes of a stream behind the prompt, with all of the others known: a row for each sample."""
    total = recorded.streams[stream].num_tokens
    known = {
        name: _rows(tokens.cut(0, recorded.prefix) if name == stream else tokens, samples)
        for name, tokens in recorded.streams.items()
    }
    forced = [name for name in known if name != stream]
    seeds = range(seed, seed + samples)
    return collect(
        lm.generate(
            known, sampler=sampler, complete=forced, limits={stream: total}, seeds=[*seeds], max_steps=total + 2
        )
    )[stream]


def _rows(tokens: TokenSequence, n: int) -> TokenSequence:
    values = tokens.values.expand(n, -1, -1).contiguous()
    return TokenSequence(values, torch.full((n,), tokens.num_tokens))


def _values(model: Any, stream: str, tokens: TokenSequence) -> np.ndarray:
    """What tokens stand for [B, T]: frames, or log-F0 less the mean."""
    tokenizer = model.tokenizer(stream)
    if isinstance(tokenizer, Durations):
        values = frames_of(tokens)
    else:
        values = (tokenizer.dequantize(tokens) if tokens.discrete else tokens).values[..., 0]
    found: np.ndarray = values.double().cpu().numpy()
    return found


def _device(module: torch.nn.Module) -> torch.device:
    return next((b.device for b in module.buffers()), torch.device("cpu"))
