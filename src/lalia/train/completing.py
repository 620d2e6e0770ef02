"""What recordings lack for a recipe: texts, the times of their words, and the other side of a conversation."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lalia.data import Manifest, Utterance
from lalia.errors import AudioError, DataError
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import Text
from lalia.train.conversations import make_conversations

__all__ = ["complete"]

Tell = Callable[[str], None]

_LISTENER, _BEAMS = "whisper-tiny.en", 5
"""As carefully as it can: it hears 30 s at once, and follows several transcripts."""

_SAVE_EVERY = 16
"""Texts that are lost when the work is stopped."""


def complete(
    recipe: Recipe,
    names: Sequence[str],
    manifest: Manifest,
    source: Path,
    folder: Path,
    *,
    tell: Tell,
    progress: Callable[[float, float], None] | None,
) -> Manifest:
    """The recordings with what the recipe needs beside sound: texts, and both sides of a conversation.

    :param names: the streams that are needed.
    :param source: where the recordings lie.
    :param folder: where their tokens will; conversations go there, texts beside it.
    """
    streams = [recipe.streams[n] for n in names]
    if any(_reads_text(s) for s in streams):
        timed = any(s.aligned_to is not None and _reads_text(s) for s in streams) or any(
            lm.layout.timed for lm in recipe.lms.values()
        )
        # Beside the prepared streams: other recipes want the same texts.
        place = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:12]
        path = folder.parent / f"transcripts-{place}.jsonl"
        manifest = _transcribed(manifest, path, timed=timed, tell=tell, progress=progress)
    sides = len(recipe.channels_of(names))
    if sides > 1 and not _has_channels(manifest, sides):
        tell("Recordings of one channel: pairs of them are put into conversations of two turns")
        manifest = make_conversations(manifest, folder / "conversations")
    return manifest


def _reads_text(stream: Stream) -> bool:
    return isinstance(stream.tokenizer, Text.Config) and stream.text is None


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
    listener = Whisper(_LISTENER, num_beams=_BEAMS)
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
