"""pGSLM's protocol: a model goes on with one prosodic stream of a recording, all else as it was recorded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lalia.data import Utterance
from lalia.errors import ConfigError, LaliaError
from lalia.evaluation.prosody.metrics import Sampled, consistency, correctness, expressiveness
from lalia.lm import Sampler, SpeechLM, collect
from lalia.streams import Discrete, Streams, TokenSequence
from lalia.tokenizers import Durations, Pitch
from lalia.tokenizers.runs import frames_of, pool_by_runs

__all__ = ["ProsodyStreams", "evaluate_prosody"]


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


@dataclass(frozen=True)
class _Recorded:
    """A recording as its streams, and what is measured of it: values [T] per run, by stream."""

    streams: Streams
    values: Mapping[str, np.ndarray]
    prefix: int
    frames: int


def evaluate_prosody(
    model: Any,
    utterances: Sequence[Utterance],
    *,
    prefix_frames: int = 150,
    samples: int = 20,
    shortest: int = 300,
    temperature: Mapping[str, float] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Correctness, consistency and expressiveness of pitch and of durations; see `lalia.evaluation.prosody.metrics`.

    Each is sampled in its turn, while the units and the other are those of the recording. Bins are compared as the
    values that they stand for, with the recording's own before it was put in bins. A speaker's level is the mean over
    all utterances of his; an utterance without a speaker has a level of its own. The prompt is of the runs that end
    within its frames: what the original does with one that goes on beyond them is not confirmed.

    :param model: of units, durations and pitch (`ProsodyStreams`).
    :param prefix_frames: of units, at 50 Hz 3 s.
    :param samples: of each prompt.
    :param shortest: frames that a recording has at least to count for consistency.
    :param temperature: by stream; the recipe's sampling when not given. pGSLM's models were best at 0.25 for durations
        and 0.7 for F0.
    :param seed: of the first sample; others follow.
    :param progress: called with how many utterances are done, and how many there are.
    :returns: ``asked``, ``answered``, ``failed``; ``figures`` for ``pitch`` and ``durations``: ``correctness``,
        ``consistency``, ``expressiveness``, and ``recorded``, the latter two of the recordings themselves; ``items``;
        ``failures``; ``settings``.
    :raises ConfigError: the model has no such streams, or a number is out of range.
    """
    if prefix_frames < 1 or samples < 1 or shortest < 0:
        raise ConfigError(
            f"A prompt of {prefix_frames} frames, {samples} samples and {shortest} frames at least were asked for. "
            "Give 1 or more, 1 or more, and 0 or more."
        )
    names = ProsodyStreams.of(model)
    lm = model.lms[names.lm]
    kinds = {"pitch": names.pitch, "durations": names.durations}
    sampler = _sampler(lm, kinds.values(), temperature or {})
    levels = _levels(model, names, utterances)
    found: dict[str, list[tuple[int, Sampled]]] = {kind: [] for kind in kinds}
    items: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    ordered = sorted(utterances, key=lambda u: u.id)
    for n, u in enumerate(ordered):
        try:
            recorded = _recorded(model, names, u, levels, prefix_frames)
            for kind, stream in kinds.items():
                drawn = _draw(lm, recorded, stream, samples, sampler, seed + n * samples)
                values = _values(model, stream, drawn)
                target = recorded.values[stream]
                found[kind].append(
                    (recorded.frames, Sampled(target[: recorded.prefix], target[recorded.prefix :], values))
                )
            items.append({"id": u.id, "frames": recorded.frames, "runs": len(recorded.values[names.pitch])})
        except LaliaError as error:
            failures.append({"id": u.id, "reason": str(error)})
        if progress is not None:
            progress(n + 1, len(ordered))
    return {
        "asked": len(ordered),
        "answered": len(items),
        "failed": len(failures),
        "figures": {kind: _figures(rows, kind == "pitch", shortest, seed) for kind, rows in found.items() if rows},
        "settings": {
            "prefix_frames": prefix_frames,
            "samples": samples,
            "shortest": shortest,
            "temperature": {s: sampler.of(s).temperature for s in kinds.values()},
            "forced": "the units and the other stream",
        },
        "items": items,
        "failures": failures,
    }


def _sampler(lm: SpeechLM, streams: Any, temperature: Mapping[str, float]) -> Sampler:
    """The recipe's, that neither ends: as many values are drawn as were recorded."""
    sampler = lm.config.sampler
    for stream in streams:
        kind = lm.specs[stream].kind
        settings = replace(sampler.of(stream), temperature=temperature.get(stream, sampler.of(stream).temperature))
        sampler = replace(sampler, streams={**sampler.streams, stream: settings})
        if isinstance(kind, Discrete):
            sampler = sampler.ban(**{stream: ((kind.end_id, kind.end_id + 1),)})
    if unknown := sorted(set(temperature) - set(streams)):
        raise ConfigError(f"A temperature is for {unknown[0]!r}. Give one for {' or '.join(streams)}.")
    return sampler


def _levels(model: Any, names: ProsodyStreams, utterances: Sequence[Utterance]) -> dict[str, float]:
    """The mean log-F0 of each speaker."""
    tokenizer = model.tokenizer(names.pitch)
    by_speaker: dict[str, list[Utterance]] = {}
    for u in utterances:
        if tokenizer.by_speaker and u.speaker is not None:
            by_speaker.setdefault(u.speaker, []).append(u)

    def sounds(of: Sequence[Utterance]) -> Any:
        for u in of:
            try:
                yield u.load().mono()
            except LaliaError:
                # It fails by itself, where it can be told.
                continue

    return {speaker: tokenizer.level(sounds(own)) for speaker, own in by_speaker.items()}


def _recorded(
    model: Any, names: ProsodyStreams, u: Utterance, levels: Mapping[str, float], prefix_frames: int
) -> _Recorded:
    audio = u.load().mono()
    channel = model.recipe.streams[names.units].channel
    level = None if u.speaker is None or u.speaker not in levels else {names.pitch: levels[u.speaker]}
    wanted = (names.units, names.durations, names.pitch)
    heard = model.listener.hear({channel: audio}, wanted, levels=level)
    streams = {name: replace(heard[name], durations=None) for name in wanted}
    units = heard[names.units]
    assert units.durations is not None
    frames = units.durations[0, : int(units.lengths[0])]
    prefix = int((frames.cumsum(0) <= prefix_frames).sum())
    if not 0 < prefix < len(frames):
        raise ConfigError(
            f"{u.id} has {int(frames.sum())} frames, of which the prompt is to have {prefix_frames}. Give longer ones."
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


def _figures(rows: Sequence[tuple[int, Sampled]], voiced: bool, shortest: int, seed: int) -> dict[str, Any]:
    prompts = [p for _, p in rows]
    long = [p for frames, p in rows if frames >= shortest]
    recorded = [Sampled(p.prefix, p.target, p.target[None]) for p in prompts]
    nothing = {"value": None, "low": None, "high": None, "n": 0}
    return {
        "correctness": correctness(prompts, seed=seed).to_dict(),
        "consistency": consistency(long, voiced=voiced, seed=seed).to_dict() if long else nothing,
        "expressiveness": expressiveness(prompts, seed=seed).to_dict(),
        "recorded": {
            "consistency": consistency(
                [Sampled(p.prefix, p.target, p.target[None]) for p in long], voiced=voiced, seed=seed
            ).to_dict()
            if long
            else nothing,
            "expressiveness": expressiveness(recorded, seed=seed).to_dict(),
        },
    }
