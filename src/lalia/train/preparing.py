"""From recordings to what a recipe is trained on: texts where it needs them, conversations, and all its streams."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lalia.audio import Audio
from lalia.checkpoints import cache_dir
from lalia.config import Configuration, to_dict
from lalia.data import Manifest, Skipped, StreamInfo, TokenRow, Utterance, discover, info_of, tokenize_corpus, unusable
from lalia.errors import AudioError, DataError
from lalia.listening import Listener
from lalia.model import HeldTokenizers, save_tokenizer
from lalia.recipe import Recipe, Stream, slices_of
from lalia.tokenizers import Text
from lalia.train.conversations import make_conversations
from lalia.train.material import TOKENIZERS
from lalia.train.tokenizers import with_bundled_units
from lalia.training.distributed import is_main, sum_floats

__all__ = ["RecipeStreams", "prepare", "prepare_all"]

Tell = Callable[[str], None]

_TINY_SECONDS = 600.0
"""Recordings that a tiny recipe is shown: enough to learn something in minutes."""

_LISTENER = "whisper-tiny.en"

_SAVE_EVERY = 16
"""Texts that are lost when the work is stopped."""


def prepare_all(
    recipe: Recipe,
    data: Sequence[str | Path],
    *,
    tiny: bool,
    tell: Tell,
    ready: Mapping[Configuration, Any],
    progress: Callable[[float, float], None] | None = None,
) -> list[Path]:
    """The data as folders of token shards: recordings among them are tokenized into the cache, once.

    :param tiny: use ten minutes of recordings, and the units of a bundled model.
    :param ready: tokenizers that are built already, by configuration.
    :raises DataError: nothing there can be used.
    """
    folders = [Path(d) for d in data]
    raw = [f for f in folders if f.is_dir() and next(f.glob("tokens-*.parquet"), None) is None]
    if not raw:
        return folders
    found = {folder: discover([folder]) for folder in raw}
    if tiny:
        recipe, ready = with_bundled_units(recipe, ready, tell)
    made_by = {n: t.identity for n in _needed(recipe) if (t := ready.get(recipe.streams[n].tokenizer)) is not None}
    out = []
    for folder in folders:
        if folder not in raw:
            out.append(folder)
            continue
        streams = to_dict({n: recipe.streams[n] for n in _needed(recipe)})
        key = json.dumps([streams, made_by, str(folder.resolve()), tiny], sort_keys=True)
        place = cache_dir() / "prepared" / f"{recipe.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        if is_main():
            prepare(recipe, found[folder], folder, place, tiny=tiny, tell=tell, ready=ready, progress=progress)
            tell(f"Prepared {place}")
        out.append(place)
    # Others wait until it is there.
    sum_floats([0.0], torch.device("cpu"))
    return out


class RecipeStreams:
    """Makes every stream that a recipe is trained on, of each utterance; see ``lalia.data.Maker``.

    :param recipe: whose streams.
    :param ready: tokenizers that are built already, by configuration.
    """

    def __init__(self, recipe: Recipe, ready: Mapping[Configuration, Any] | None = None) -> None:
        self.recipe = recipe
        self.tokenizer = HeldTokenizers(recipe.streams, ready=ready)
        self.names = _needed(recipe)
        self.listener = Listener(recipe.streams, self.tokenizer)
        self._order = recipe.channels

    @cached_property
    def info(self) -> Mapping[str, StreamInfo]:
        return {n: info_of(self.tokenizer(n), spec=self.recipe.streams[n].spec) for n in self.names}

    def load(self, u: Utterance) -> dict[str | None, Audio]:
        if len(self._order) == 1:
            return {self._order[0]: u.load()}
        sounds = {}
        for i, channel in enumerate(self._order):
            # One side of a conversation may be silent.
            sounds[channel] = replace(u, channel=i).load(check=False)
        return sounds

    def encode(self, loaded: Sequence[tuple[Utterance, dict[str | None, Audio]]]) -> list[TokenRow | Skipped]:
        rows: list[TokenRow | Skipped] = []
        for u, sounds in loaded:
            try:
                streams = self.listener.hear(sounds, self.names, text=u.text, words=u.words)
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


def _needed(recipe: Recipe) -> tuple[str, ...]:
    """The streams that some language model reads or predicts, or that the vocoder reads."""
    used = {s for lm in recipe.lms.values() for s in (*lm.layout.streams, *lm.heads)}
    used |= set() if recipe.vocoder is None else set(recipe.vocoder.reads)
    # What is stored in slices need not be stored whole.
    return tuple(n for n in recipe.streams if n in used and not slices_of(recipe.streams, n))


def prepare(
    recipe: Recipe,
    manifest: Manifest,
    source: Path,
    folder: Path,
    *,
    tiny: bool,
    tell: Tell,
    ready: Mapping[Configuration, Any] | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> Path:
    """Token shards of all streams of a recipe, made of recordings.

    :param manifest: the recordings, which lie in ``source``.
    :param folder: for the shards; what is there already stays.
    :param tiny: use ten minutes of them.
    :returns: the folder of the shards.
    :raises DataError: nothing there can be used.
    """
    if tiny:
        manifest = _first(manifest, _TINY_SECONDS)
    streams = [recipe.streams[n] for n in _needed(recipe)]
    if any(_reads_text(s) for s in streams):
        timed = any(s.aligned_to is not None for s in streams) or any(lm.layout.timed for lm in recipe.lms.values())
        # Beside the prepared streams: other recipes want the same texts.
        place = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:12]
        path = folder.parent / f"transcripts-{place}.jsonl"
        manifest = _transcribed(manifest, path, timed=timed, tell=tell, progress=progress)
    if len(recipe.channels) > 1 and not _has_channels(manifest, len(recipe.channels)):
        tell("Recordings of one channel: pairs of them are put into conversations of two turns")
        manifest = make_conversations(manifest, folder / "conversations")
    maker = RecipeStreams(recipe, ready)
    report = tokenize_corpus(manifest, maker, folder, progress=progress)
    if not report.done:
        reasons = "; ".join(dict.fromkeys(s.reason for s in report.skipped[:3]))
        raise DataError(f"None of {report.total} recordings in {source} could be used ({reasons}). Give others.")
    for name in maker.names:
        tokenizer = maker.tokenizer(name)
        if hasattr(tokenizer, "weights"):
            save_tokenizer(tokenizer, folder / TOKENIZERS / name)
    return folder


def _reads_text(stream: Stream) -> bool:
    return isinstance(stream.tokenizer, Text.Config)


def _first(manifest: Manifest, seconds: float) -> Manifest:
    kept: list[Utterance] = []
    total = 0.0
    for u in manifest:
        if total >= seconds:
            break
        kept.append(u)
        total += u.duration
    return Manifest(kept)


def _has_channels(manifest: Manifest, count: int) -> bool:
    import soundfile

    try:
        return all(soundfile.info(u.path).channels >= count for u in manifest[:3])
    except (OSError, RuntimeError):
        return False


def _transcribed(
    manifest: Manifest,
    path: Path,
    *,
    timed: bool,
    tell: Tell,
    progress: Callable[[float, float], None] | None,
) -> Manifest:
    """The manifest with a text for each utterance, and with the times of its words where they are needed."""
    from lalia.evaluation import Whisper

    def lacks(u: Utterance) -> bool:
        return u.text is None or (timed and u.words is None)

    if not any(lacks(u) for u in manifest):
        return manifest
    known = {u.id: u for u in Manifest.load(path)} if path.exists() else {}
    tell(f"Texts: {_LISTENER} writes down what is said")
    listener = Whisper(_LISTENER)
    path.parent.mkdir(parents=True, exist_ok=True)
    out: list[Utterance] = []
    done = 0.0
    for i, u in enumerate(manifest):
        if lacks(u) and u.id in known:
            u = replace(u, text=known[u.id].text, words=known[u.id].words)
        if lacks(u):
            try:
                audio = u.load(sample_rate=16000)
                text = u.text if u.text is not None else listener([audio])[0]
                words = listener.align(audio, text) if timed and u.words is None else u.words
                u = replace(u, text=text, words=words)
            except (AudioError, DataError):
                continue
        out.append(u)
        known[u.id] = u
        done += u.duration
        if progress is not None:
            progress(done, manifest.seconds)
        if i % _SAVE_EVERY == _SAVE_EVERY - 1:
            Manifest(known.values()).save(path)
    Manifest(known.values()).save(path)
    return Manifest(out)
