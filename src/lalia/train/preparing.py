"""From recordings to what a recipe is trained on: texts where it needs them, conversations, and all its streams."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lalia.audio import Audio
from lalia.checkpoints import cache_dir
from lalia.config import Configuration, to_dict
from lalia.data import (
    Manifest,
    Skipped,
    StreamInfo,
    TokenRow,
    Utterance,
    Word,
    discover,
    info_of,
    tokenize_corpus,
    unusable,
)
from lalia.errors import DataError
from lalia.listening import Listener
from lalia.model import HeldTokenizers, is_duplex, save_tokenizer
from lalia.model.template import templated
from lalia.recipe import Recipe
from lalia.train.completing import complete
from lalia.train.learning import begun_with, learn, level_of
from lalia.train.material import TOKENIZERS
from lalia.train.needs import streams_of_stages
from lalia.train.tokenizers import with_bundled
from lalia.training.distributed import is_main, sum_floats

__all__ = ["RecipeStreams", "prepare_all"]

Tell = Callable[[str], None]

_SILENT = 1e-4
"""-80 dBFS: what the other side of a conversation is where nobody recorded it."""

_TINY_SECONDS = 600.0
"""Recordings that a tiny recipe is shown: enough to learn something in minutes."""


def prepare_all(
    recipe: Recipe,
    data: Sequence[str | Path],
    *,
    tiny: bool,
    tell: Tell,
    ready: Mapping[Configuration, Any],
    stage: str | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> list[Path]:
    """The data as folders of token shards: recordings among them are tokenized into the cache, once.

    :param stage: the only one that is to be trained, if one is: what it does not need is not made.
    :param tiny: use ten minutes of recordings, and the units and the codec that are bundled.
    :param ready: tokenizers that are built already, by configuration.
    :raises DataError: nothing there can be used.
    """
    folders = [Path(d) for d in data]
    raw = [f for f in folders if _is_recorded(f)]
    if not raw:
        return folders
    found = {folder: discover([folder]) for folder in raw}
    if tiny:
        recipe, ready = with_bundled(recipe, ready, tell)
    maker = RecipeStreams(recipe, ready, names=streams_of_stages(recipe, stage))
    places = {folder: _place(maker.recipe, maker.names, folder, found, tiny, ready) for folder in raw}
    if is_main():
        for folder in folders:
            maker.begun_with(places.get(folder, folder))
        manifests = {}
        for folder, place in places.items():
            part = _first(found[folder], _TINY_SECONDS) if tiny else found[folder]
            manifests[folder] = complete(recipe, maker.names, part, folder, place, tell=tell, progress=progress)
        # One tokenizer for all folders.
        maker.learn([u for manifest in manifests.values() for u in manifest], tell)
        for folder, place in places.items():
            _prepare(maker, manifests[folder], folder, place, progress)
            tell(f"Prepared {place}")
    # Others wait until it is there.
    sum_floats([0.0], torch.device("cpu"))
    return [places.get(folder, folder) for folder in folders]


def _is_recorded(path: Path) -> bool:
    """Whether it is recordings or a manifest of some, and not token shards."""
    if path.is_dir():
        return next(path.glob("tokens-*.parquet"), None) is None
    return path.is_file() and path.suffix != ".parquet"


def _place(
    recipe: Recipe,
    names: Sequence[str],
    folder: Path,
    found: Mapping[Path, Manifest],
    tiny: bool,
    ready: Mapping[Configuration, Any],
) -> Path:
    """Where the tokens of a folder of recordings are kept."""
    streams = {n: recipe.streams[n] for n in names}
    made_by = {n: ready[s.tokenizer].identity for n, s in streams.items() if s.tokenizer in ready}
    # Tokens hang on all that their tokenizers learn from.
    learn = any(hasattr(getattr(s.tokenizer, "owner", None), "fit") for n, s in streams.items() if n not in made_by)
    # A folder that has got more recordings is another one.
    held = {str(f.resolve()): [(u.id, u.duration, u.text) for u in manifest] for f, manifest in found.items()}
    heard = held if learn else held[str(folder.resolve())]
    turns = not is_duplex(recipe) and len(recipe.channels_of(names)) > 1
    key = json.dumps([to_dict(streams), made_by, str(folder.resolve()), tiny, heard, turns], sort_keys=True)
    return cache_dir() / "prepared" / f"{recipe.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Heard:
    """The sound of an utterance, by channel of the recipe, and when the model's own begins in it, in seconds."""

    sounds: Mapping[str | None, Audio]
    start: float = 0.0


class RecipeStreams:
    """Makes every stream that a recipe is trained on, of each utterance; see ``lalia.data.Maker``.

    :param recipe: whose streams.
    :param ready: tokenizers that are built already, by configuration.
    :param names: which streams; all that the recipe is trained on when not given.
    """

    def __init__(
        self,
        recipe: Recipe,
        ready: Mapping[Configuration, Any] | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        self.tokenizer = HeldTokenizers(recipe.streams, ready=ready)
        self.names = streams_of_stages(recipe, None) if names is None else tuple(names)
        self.recipe = recipe = templated(recipe, self.names, self.tokenizer)
        self.listener = Listener(recipe.streams, self.tokenizer)
        self._order = recipe.channels_of(self.names)
        self._by_turns = not is_duplex(recipe)
        self._levels: dict[str, Callable[[Utterance], float | None]] = {}

    @cached_property
    def info(self) -> Mapping[str, StreamInfo]:
        return {n: info_of(self.tokenizer(n), spec=self.recipe.streams[n].spec) for n in self.names}

    def begun_with(self, folder: Path) -> None:
        """Take what the tokenizers of the tokens in a folder have learned, if there are some."""
        for name in self.names:
            begun_with(folder / TOKENIZERS / name, self.tokenizer(name))

    def learn(self, utterances: Iterable[Utterance], tell: Tell | None = None) -> None:
        """Let the tokenizers that must hear recordings first hear those that they are for.

        :raises DataError: there is too little.
        """
        for name in self.names:
            channel, tokenizer = self.recipe.streams[name].channel, self.tokenizer(name)

            def load(u: Utterance, channel: str | None = channel) -> Audio:
                return self.load(u).sounds[channel]

            if learn(tokenizer, utterances, load, name) and tell is not None:
                tell(f"Stream {name!r}: fitted {type(tokenizer).__name__} on the recordings")
            # Whose voice it is is known of the model's own side.
            level = level_of(tokenizer, utterances, load) if channel == self._order[0] else None
            if level is not None:
                self._levels[name] = level

    def save(self, folder: Path) -> None:
        """Keep the tokenizers beside the tokens that they make."""
        for name in self.names:
            if hasattr(self.tokenizer(name), "weights"):
                save_tokenizer(self.tokenizer(name), folder / TOKENIZERS / name)

    def load(self, u: Utterance) -> "Heard":
        if len(self._order) == 1:
            return Heard({self._order[0]: u.load()})
        # One side of a conversation may be silent.
        sounds = {channel: replace(u, channel=i).load(check=False) for i, channel in enumerate(self._order)}
        if self._by_turns:
            turns = {channel: _turn(audio) for channel, audio in sounds.items()}
            sounds = {channel: sounds[channel].cut(start, stop - start) for channel, (start, stop) in turns.items()}
            return Heard(sounds, turns[self._order[0]][0])
        return Heard(sounds)

    def encode(self, loaded: Sequence[tuple[Utterance, "Heard"]]) -> list[TokenRow | Skipped]:
        rows: list[TokenRow | Skipped] = []
        for u, heard in loaded:
            sounds = heard.sounds
            words, phones = (_moved(x, -heard.start) for x in (u.words, u.phones))
            levels = {n: x for n, level in self._levels.items() if (x := level(u)) is not None}
            try:
                streams = self.listener.hear(sounds, self.names, text=u.text, words=words, phones=phones, levels=levels)
            except DataError as error:
                rows.append(Skipped(u.id, str(u.path), str(error)))
                continue
            reasons = [f"{r} for stream {n!r}" for n in self.names if (r := unusable(streams[n]))]
            if reasons:
                rows.append(Skipped(u.id, str(u.path), reasons[0]))
                continue
            seconds = max(a.seconds for a in sounds.values())
            kept = {n: streams[n].to("cpu") for n in self.names}
            rows.append(TokenRow(u.id, seconds, kept, u.speaker, u.text, u.language))
        return rows


def _moved(words: Sequence[Word] | None, seconds: float) -> Sequence[Word] | None:
    if words is None or not seconds:
        return words
    return tuple(w._replace(start=w.start + seconds, end=w.end + seconds) for w in words)


def _turn(audio: Audio) -> tuple[float, float]:
    """Where one side of a conversation begins and ends, in seconds: without the silence around it.

    A model that answers when the question is over hears no silence behind that, and makes none before its answer.
    """
    loud = (audio.samples[0].abs().amax(0) > _SILENT).nonzero()[:, 0]
    if not len(loud):
        return 0.0, audio.seconds
    return int(loud[0]) / audio.sample_rate, (int(loud[-1]) + 1) / audio.sample_rate


def _prepare(
    maker: RecipeStreams,
    manifest: Manifest,
    source: Path,
    folder: Path,
    progress: Callable[[float, float], None] | None,
) -> None:
    """Token shards of all streams of a recipe in ``folder``, of the recordings in ``source``; what is there stays.

    :raises DataError: nothing there can be used.
    """
    if not (folder / TOKENIZERS).exists():
        # Before the work: what goes on with it later must not learn anew.
        maker.save(folder)
    report = tokenize_corpus(manifest, maker, folder, progress=progress)
    if not report.done:
        reasons = "; ".join(dict.fromkeys(s.reason for s in report.skipped[:3]))
        raise DataError(f"None of {report.total} recordings in {source} could be used ({reasons}). Give others.")


def _first(manifest: Manifest, seconds: float) -> Manifest:
    kept: list[Utterance] = []
    total = 0.0
    for u in manifest:
        if total >= seconds:
            break
        kept.append(u)
        total += u.duration
    return Manifest(kept)
