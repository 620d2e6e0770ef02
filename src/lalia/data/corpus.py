"""A corpus to token shards: resumable, by one process or many, and never stopped by a bad recording.

Shard ``i`` is a fixed slice of the manifest and is written whole or not at all, so what is on the disk says
how far the work is, whoever did it: a run that was killed, or several processes with their ``rank``, end in
the same files as one run in peace.
"""

import hashlib
import json
import math
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from lalia.audio import Audio
from lalia.config import to_dict
from lalia.data.importers import MANIFEST_NAME
from lalia.data.manifest import Manifest, Skipped, Utterance
from lalia.data.report import Report
from lalia.data.shards import Header, StreamInfo, TokenRow, make_folder, read_header, shard_name
from lalia.data.writing import write_shard
from lalia.errors import AudioError, DataError
from lalia.streams import StreamSpec, TokenSequence

__all__ = ["Maker", "Tokenizer", "tokenize_corpus"]


class Tokenizer(Protocol):
    """What turns sound into one stream.

    ``encode`` gives a recording the same tokens whatever else is in its batch.
    """

    @property
    def spec(self) -> StreamSpec: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def identity(self) -> str:
        """SHA-256 of everything that decides the output, in hexadecimal."""
        ...

    @property
    def config(self) -> Any: ...
    def encode(self, audio: Audio) -> TokenSequence: ...


class Maker(Protocol):
    """What turns utterances into rows of shards, of one stream or of many."""

    @property
    def info(self) -> Mapping[str, StreamInfo]:
        """What it makes."""
        ...

    def load(self, u: Utterance) -> Any:
        """The sound of an utterance, as it is needed; called by several threads at once.

        :raises AudioError: it cannot be used.
        """
        ...

    def encode(self, loaded: Sequence[tuple[Utterance, Any]]) -> Sequence[TokenRow | Skipped]:
        """Rows of a batch, in order.

        :raises AudioError: a recording cannot be used. The batch is then tried one by one.
        """
        ...


class _OneStream:
    """A tokenizer as a maker."""

    def __init__(
        self, tokenizer: Tokenizer, stream: str, name: str | None, level: Callable[[Utterance], float | None] | None
    ) -> None:
        self.tokenizer, self.stream, self.level = tokenizer, stream, level
        self.info = {stream: info_of(tokenizer, name)}

    def load(self, u: Utterance) -> Audio:
        return u.load(sample_rate=self.tokenizer.sample_rate)

    def encode(self, loaded: Sequence[tuple[Utterance, Audio]]) -> list[TokenRow | Skipped]:
        # A batch of one may be hours long: not to be copied.
        items = [audio for _, audio in loaded]
        options: dict[str, Any] = {}
        if self.level is not None:
            found_levels = [self.level(u) for u, _ in loaded]
            options["level"] = torch.tensor([math.nan if x is None else x for x in found_levels])
        tokens = self.tokenizer.encode(Audio.batch(items) if len(items) > 1 else items[0], **options)
        found: list[TokenRow | Skipped] = []
        for b, (u, audio) in enumerate(loaded):
            row = tokens.row(b)
            reason = unusable(row)
            if reason is None:
                found.append(TokenRow(u.id, audio.seconds, {self.stream: row.to("cpu")}, u.speaker, u.text, u.language))
            else:
                found.append(Skipped(u.id, str(u.path), reason))
        return found


def info_of(tokenizer: Any, name: str | None = None, spec: StreamSpec | None = None) -> StreamInfo:
    """What a tokenizer makes and is.

    :param name: for people; the name of its class when not given.
    :param spec: of the stream, where it is not all that the tokenizer makes.
    """
    config = to_dict(tokenizer.config)
    kind = config.get("type", type(tokenizer).__name__) if isinstance(config, dict) else type(tokenizer).__name__
    return StreamInfo(spec or tokenizer.spec, name or str(kind).rpartition(".")[2], tokenizer.identity, config)


def unusable(tokens: TokenSequence) -> str | None:
    """Why the tokens of an utterance cannot be used, or None."""
    if not tokens.num_tokens:
        return "gives no tokens"
    if not tokens.discrete and not bool(tokens.values.half().isfinite().all()):
        return "gives features that are not finite in 16 bits"
    return None


def tokenize_corpus(
    manifest: Manifest | Iterable[Utterance],
    tokenizer: Tokenizer | Maker,
    folder: str | Path,
    *,
    stream: str = "units",
    name: str | None = None,
    level: Callable[[Utterance], float | None] | None = None,
    batch_seconds: float = 120.0,
    shard_seconds: float = 3600.0,
    shard_rows: int = 2048,
    num_workers: int = 2,
    rank: int = 0,
    world: int = 1,
    progress: Callable[[float, float], None] | None = None,
) -> Report:
    """Write the tokens of every utterance, in manifest order, with ``manifest.jsonl`` and ``report.json``.

    Call it again after a crash with the same arguments: shards that are there stay, and the rest is made.
    At most about two batches of sound are in memory; a recording longer than a batch is one of its own.

    :param tokenizer: of one stream, or a maker of several.
    :param stream: the name of the stream in the shards, where there is one.
    :param name: of the tokenizer, for people; the name of its class when not given.
    :param level: gives what the tokenizer of one stream takes as ``level``: that of who speaks.
    :param batch_seconds: sound per batch, padding included.
    :param shard_seconds: sound per shard, at most: what a crash can cost.
    :param shard_rows: utterances per shard, at most.
    :param num_workers: threads that read sound.
    :param rank: which of ``world`` processes this is; it makes every ``world``-th shard.
    :param progress: called with the seconds of sound dealt with and those of the whole share of this rank.
    :raises DataError: nothing to do, or the folder holds tokens of another tokenizer or manifest.
    :raises OutputError: the folder cannot be written.
    """
    started = time.perf_counter()
    manifest = manifest if isinstance(manifest, Manifest) else Manifest(manifest)
    if not len(manifest):
        raise DataError("There are no utterances to tokenize. Name recordings that can be read.")
    if not 0 <= rank < world:
        raise DataError(f"This is rank {rank} of {world}. Count ranks from 0.")
    target = make_folder(folder)
    maker: Maker = tokenizer if hasattr(tokenizer, "info") else _OneStream(tokenizer, stream, name, level)  # type: ignore[arg-type, assignment]
    job = _Job(target, maker, _slices(manifest, shard_seconds, shard_rows))

    present = job.present()
    mine = range(rank, len(job.slices), world)
    todo = [i for i in mine if i not in present]
    for i in todo:
        # Left by a run of this rank that was killed while it wrote.
        for part in target.glob(f".{shard_name(i)}.*.part"):
            part.unlink(missing_ok=True)
    if rank == 0:
        manifest.save(target / MANIFEST_NAME)

    share = sum(job.seconds(i) for i in mine)
    reached = share - sum(job.seconds(i) for i in todo)
    worked = 0.0
    if progress is not None:
        progress(reached, share)
    for seconds in job.run(todo, batch_seconds, num_workers):
        worked += seconds
        if progress is not None:
            progress(reached + worked, share)
    return job.report(manifest, time.perf_counter() - started, worked)


def _slices(manifest: Manifest, seconds: float, rows: int) -> list[tuple[Utterance, ...]]:
    slices: list[tuple[Utterance, ...]] = []
    current: list[Utterance] = []
    length = 0.0
    for u in manifest:
        if current and (length + u.duration > seconds or len(current) == rows):
            slices.append(tuple(current))
            current, length = [], 0.0
        current.append(u)
        length += u.duration
    return [*slices, tuple(current)]


def _batches(utterances: Sequence[Utterance], seconds: float) -> Iterator[list[int]]:
    """Places of utterances of like length, the longest first, so that what is too large fails at once."""
    batch: list[int] = []
    longest = 0.0
    for i in sorted(range(len(utterances)), key=lambda i: (-utterances[i].duration, i)):
        longest = longest or utterances[i].duration
        if batch and longest * (len(batch) + 1) > seconds:
            yield batch
            batch, longest = [], utterances[i].duration
        batch.append(i)
    yield batch


@dataclass(frozen=True)
class _Job:
    """What is to be in the folder."""

    folder: Path
    maker: Maker
    slices: Sequence[tuple[Utterance, ...]]

    def seconds(self, i: int) -> float:
        return sum(u.duration for u in self.slices[i])

    def fingerprint(self, i: int) -> str:
        """What tells one slice of a manifest from another; paths may differ between machines."""
        facts = [(u.id, u.channel, u.start, u.duration) for u in self.slices[i]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def present(self) -> dict[int, Header]:
        """The shards on disk that can stay.

        :raises DataError: they are of another tokenizer or manifest.
        """
        found = {}
        numbers = {shard_name(i): i for i in range(len(self.slices))}
        for path in sorted(self.folder.glob("tokens-*.parquet")):
            try:
                header = read_header(path)
            except DataError:
                if path.name in numbers:
                    continue  # damaged: it is made again
                raise
            if set(header.streams) != set(self.maker.info):
                raise DataError(f"{path} holds the streams {', '.join(header.streams)}. Choose an empty folder.")
            for name, info in self.maker.info.items():
                held = header.streams[name]
                if (held.sha256, held.spec) != (info.sha256, info.spec):
                    raise DataError(f"{path} was made by {held}, not by {info}. Choose an empty folder.")
            i = numbers.get(path.name)
            if i is None or header.note.get("slice") != self.fingerprint(i):
                raise DataError(
                    f"{path} was made from another manifest or with other shard sizes. Choose an empty folder."
                )
            found[i] = header
        return found

    def run(self, todo: Sequence[int], batch_seconds: float, workers: int) -> Iterator[float]:
        """Make shards; after each batch, the seconds of sound in it."""
        results: dict[int, TokenRow | Skipped] = {}
        with ThreadPoolExecutor(max(workers, 1)) as pool, closing(self._read(pool, todo, batch_seconds)) as read:
            for shard, places, futures in read:
                utterances = self.slices[shard]
                loaded: dict[int, Any] = {}
                for i, future in zip(places, futures, strict=True):
                    try:
                        loaded[i] = future.result()
                    except AudioError as error:
                        results[i] = _skip(utterances[i], error)
                results |= self._encode(utterances, loaded)
                del loaded, futures
                if len(results) == len(utterances):
                    self._write(shard, [results[i] for i in range(len(utterances))])
                    results = {}
                yield sum(utterances[i].duration for i in places)

    def _read(
        self, pool: ThreadPoolExecutor, todo: Sequence[int], batch_seconds: float
    ) -> Generator[tuple[int, list[int], list[Future[Any]]], None, None]:
        """Batches of a shard, of the next shard, ..., each being read while the one before is encoded."""
        ahead: deque[tuple[int, list[int], list[Future[Any]]]] = deque()
        seconds: deque[float] = deque()
        try:
            for shard in todo:
                utterances = self.slices[shard]
                for places in _batches(utterances, batch_seconds):
                    size = utterances[places[0]].duration * len(places)
                    # A recording of an hour waits until there is nothing else in memory.
                    while ahead and (len(ahead) > 1 or sum(seconds) + size > 2 * batch_seconds):
                        seconds.popleft()
                        yield ahead.popleft()
                    futures = [pool.submit(self.maker.load, utterances[i]) for i in places]
                    ahead.append((shard, places, futures))
                    seconds.append(size)
            while ahead:
                yield ahead.popleft()
        finally:
            for _, _, futures in ahead:
                for future in futures:
                    future.cancel()

    def _encode(self, utterances: Sequence[Utterance], loaded: Mapping[int, Any]) -> dict[int, TokenRow | Skipped]:
        if not loaded:
            return {}
        try:
            made = self.maker.encode([(utterances[i], x) for i, x in loaded.items()])
        except AudioError as error:
            if len(loaded) == 1:
                return {i: _skip(utterances[i], error) for i in loaded}
            # One recording must not cost the others of its batch.
            return {k: v for i, x in loaded.items() for k, v in self._encode(utterances, {i: x}).items()}
        return dict(zip(loaded, made, strict=True))

    def _write(self, shard: int, results: Sequence[TokenRow | Skipped]) -> None:
        note = {
            "shard": shard,
            "shards": len(self.slices),
            "slice": self.fingerprint(shard),
            "seconds": sum(r.seconds for r in results if isinstance(r, TokenRow)),
            "skipped": [[s.id, s.path, s.reason] for s in results if isinstance(s, Skipped)],
        }
        rows = [r for r in results if isinstance(r, TokenRow)]
        write_shard(self.folder / shard_name(shard), rows, self.maker.info, note=note)

    def report(self, manifest: Manifest, seconds: float, worked: float) -> Report:
        """The state of the whole folder, also written to it."""
        while True:
            present = self.present()
            notes = [present[i].note for i in sorted(present)]
            report = Report(
                total=len(manifest) + len(manifest.skipped),
                done=sum(header.num_rows for header in present.values()),
                skipped=(*manifest.skipped, *(Skipped(*s) for note in notes for s in note["skipped"])),
                hours=sum(note["seconds"] for note in notes) / 3600,
                complete=len(present) == len(self.slices),
                seconds=seconds,
                real_time_factor=seconds / worked if worked else None,
            )
            report.save(self.folder)
            # Another process may have finished meanwhile and written its own report under this one.
            if len(self.present()) == len(present):
                return report


def _skip(u: Utterance, error: AudioError) -> Skipped:
    """The error's first sentence without the file's name, which the record has anyway."""
    what = str(error).removeprefix(str(u.path)).strip()
    return Skipped(u.id, str(u.path), re.split(r"(?<=\S)\. (?=[A-Z])", what, maxsplit=1)[0].rstrip("."))
