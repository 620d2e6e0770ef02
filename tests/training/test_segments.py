import hashlib
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from lalia.data import Manifest, Mixture, Source, StreamInfo, TokenRow, Utterance, write_shard
from lalia.errors import AudioError, ConfigError, DataError
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.training.recordings import Recorded, Sounds, voice_of
from lalia.training.segments import SegmentBatches
from lalia.training.utterances import UtteranceBatches

RATE, FRAME_RATE = 8000, 50.0
HOP = 160
SPEAKERS = ("anna", "ben", "carl", None)


def write(folder: Path, lengths: list[int], *, deduplicated: bool = True, seed: int = 0) -> Recorded:
    """Utterances whose code in a frame can be read off their sound: it is constant within a frame."""
    folder.mkdir()
    chance = torch.Generator().manual_seed(seed)
    spec = StreamSpec(kind=Discrete(20), frame_rate=FRAME_RATE, deduplicated=deduplicated)
    info = {"units": StreamInfo(spec, "test", hashlib.sha256(b"test").hexdigest(), {"type": "test"})}
    rows, utterances = [], []
    for i, frames in enumerate(lengths):
        codes = torch.randint(0, 20, (frames,), generator=chance)
        tokens = TokenSequence(codes[None, None], torch.tensor([frames]))
        samples = (codes + 1).repeat_interleave(HOP).float() / 32
        path = folder / f"{i}.wav"
        soundfile.write(path, samples.numpy(), RATE, subtype="FLOAT")
        name, speaker = f"{folder.name}-{i}", SPEAKERS[i % 4]
        streams = {"units": tokens.deduplicate() if deduplicated else tokens}
        rows.append(TokenRow(name, frames / FRAME_RATE, streams, speaker))
        utterances.append(Utterance(name, path, duration=frames / FRAME_RATE, speaker=speaker))
    write_shard(folder / "tokens-00000.parquet", rows, info)
    Manifest(utterances).save(folder / "manifest.jsonl")
    return Recorded.of(Mixture((Source(str(folder)),)).open(), [Manifest(utterances)])


def codes_of(sound: torch.Tensor) -> torch.Tensor:
    """The codes that a sound was made of, from the middle of each frame."""
    return (sound[..., HOP // 2 :: HOP] * 32).round().long() - 1


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return write(tmp_path / "a", [30, 41, 12, 55, 23, 8, 64, 37])


def segments(recorded: Recorded, **options: Any) -> SegmentBatches:
    return SegmentBatches(recorded, "units", **{"sample_rate": RATE, "frames": 10, "batch_size": 4, **options})


def epoch(batches: Any) -> list[list[Any]]:
    """The batches up to the end of the epoch."""
    return list(batches)


# -- segments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("deduplicated", [True, False])
def test_a_segment_has_the_codes_of_its_sound(tmp_path: Path, deduplicated: bool) -> None:
    batches = segments(write(tmp_path / "a", [30, 41, 12, 55], deduplicated=deduplicated))
    for batch in epoch(batches):
        for micro in batch:
            assert micro["audio"].sample_rate == RATE
            assert micro["audio"].samples.shape == (len(micro["speaker"]), 1, 10 * HOP)
            assert torch.equal(codes_of(micro["audio"].samples), micro["streams"]["units"].values)
            assert micro["seconds"] == pytest.approx(len(micro["speaker"]) * 0.2)


def test_every_stretch_comes_about_once_an_epoch(recorded: Recorded) -> None:
    batches = segments(recorded, batch_size=1)
    for _ in range(3):
        seen = batches._segments(batches.epoch)
        for row, frames in enumerate([30, 41, 12, 55, 23, 8, 64, 37]):
            starts = sorted(s.start for s in seen if s.row == row)
            assert all(b - a == 10 for a, b in pairwise(starts))
            assert all(0 <= s <= frames - 10 for s in starts)
            assert frames // 10 - 1 <= len(starts) <= frames // 10
        epoch(batches)
    assert batches.epoch == 3


def test_epochs_differ_and_repeat(recorded: Recorded) -> None:
    first, again, other = segments(recorded), segments(recorded), segments(recorded, seed=1)
    plans = [[b._segments(e) for e in (0, 1)] for b in (first, again, other)]
    assert plans[0] == plans[1]
    assert plans[0][0] != plans[0][1]
    assert plans[0] != plans[2]


def test_it_goes_on_where_it_stopped(recorded: Recorded) -> None:
    whole, first = segments(recorded), segments(recorded)
    wanted = [b for _ in range(2) for b in epoch(whole)]
    got = list(islice(first, 3))
    second = segments(recorded)
    second.load_state_dict(first.state_dict())
    got += epoch(second) + epoch(second)
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a[0]["audio"].samples, b[0]["audio"].samples)
    second.load_state_dict({"epoch": 0, "position": 1})  # of a run that kept no fingerprint yet
    with pytest.raises(DataError, match="belongs to other data"):
        segments(recorded, frames=9).load_state_dict(first.state_dict())


def test_ranks_share_a_batch(recorded: Recorded) -> None:
    alone = epoch(segments(recorded, batch_size=5))
    ranks = [epoch(segments(recorded, batch_size=5, rank=r, world=2, micro_batch_size=2)) for r in (0, 1)]
    assert len(ranks[0]) == len(ranks[1]) == len(alone)
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert [len(m["speaker"]) for m in parts[0]] == [2, 1]
        assert [len(m["speaker"]) for m in parts[1]] == [2]
        sound = torch.empty_like(whole[0]["audio"].samples)
        sound[0::2], sound[1::2] = (torch.cat([m["audio"].samples for m in part]) for part in parts)
        assert torch.equal(sound, whole[0]["audio"].samples)


def test_several_folders_are_one_corpus_even_with_the_same_ids(tmp_path: Path) -> None:
    folders = [tmp_path / x / "same" for x in "ab"]
    for i, folder in enumerate(folders):
        folder.parent.mkdir()
        write(folder, [25, 30], seed=i)
    tokens = Mixture(tuple(Source(str(f)) for f in folders)).open()
    recorded = Recorded.of(tokens, [Manifest.load(f / "manifest.jsonl") for f in folders])
    assert len(recorded) == 4
    batch = segments(recorded, batch_size=8).load(
        [s for b in [segments(recorded, batch_size=1)] for s in b._segments(0)]
    )
    assert torch.equal(codes_of(batch["audio"].samples), batch["streams"]["units"].values)


def test_what_cannot_be_cut_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="None of the 8 utterances has 100 frames"):
        segments(recorded, frames=100)
    with pytest.raises(DataError, match=r"50\.0 Hz does not divide sound at 22051 Hz"):
        segments(recorded, sample_rate=22051)
    alone = Recorded.of(recorded.tokens, [None])
    with pytest.raises(DataError, match=r"keep manifest\.jsonl beside the shards"):
        segments(alone)


# -- voices -------------------------------------------------------------------------------------


def test_voices_are_numbered_as_named() -> None:
    assert voice_of("anyone", (), 5) == 0
    assert [voice_of(s, ("b", "a"), 2) for s in ("a", "b", "c", None)] == [1, 0, None, None]
    others = [voice_of(f"speaker {i}", ("b", "a"), 6) for i in range(100)]
    assert set(others) == {2, 3, 4, 5}
    assert others == [voice_of(f"speaker {i}", ("b", "a"), 6) for i in range(100)]
    with pytest.raises(ConfigError, match="3 voices are named, but the vocoder has 2"):
        voice_of("a", ("a", "b", "c"), 2)


def test_who_has_no_voice_is_left_out(recorded: Recorded) -> None:
    batches = segments(recorded, voices=("ben", "anna"), num_voices=2)
    said = torch.cat([m["speaker"] for b in epoch(batches) for m in b])
    assert set(said.tolist()) == {0, 1}
    assert {s.row % 4 for s in batches._segments(0)} == {0, 1}
    with pytest.raises(DataError, match="and a voice"):
        segments(recorded, voices=("nobody",), num_voices=1)


# -- recordings ---------------------------------------------------------------------------------


def test_sounds_are_read_once_and_forgotten_when_there_are_too_many(recorded: Recorded, monkeypatch: Any) -> None:
    reads: list[str] = []
    plain = Utterance.load
    monkeypatch.setattr(Utterance, "load", lambda u, **k: reads.append(u.id) or plain(u, **k))
    sounds = Sounds(recorded.utterances, RATE, cache_bytes=2 * HOP * 60)
    assert len(sounds.get(0)) == 30 * HOP
    assert torch.equal(sounds.get(0, 10, 500), sounds.get(0)[10:500])
    assert len(reads) == 1
    sounds.get(1)  # 30 + 41 frames are more than 60
    sounds.get(0)
    assert reads == ["a-0", "a-1", "a-0"]
    assert sounds.get(0, 29 * HOP, 40 * HOP).shape == (HOP,)


def test_a_recording_that_is_gone_is_told(recorded: Recorded) -> None:
    batches = segments(recorded)
    for utterance in recorded.utterances:
        assert utterance is not None
        utterance.path.unlink()
    with pytest.raises(AudioError, match="does not exist"):
        next(iter(batches))


# -- whole utterances ---------------------------------------------------------------------------


def utterances(recorded: Recorded, **options: Any) -> UtteranceBatches:
    return UtteranceBatches(recorded, "units", **{"sample_rate": RATE, "max_tokens": 120, **options})


@pytest.mark.parametrize("deduplicated", [True, False])
@pytest.mark.parametrize("max_length", [None, 9])
def test_whole_utterances_and_stretches_have_their_sound(
    tmp_path: Path, deduplicated: bool, max_length: int | None
) -> None:
    recorded = write(tmp_path / "a", [30, 41, 12, 55, 23], deduplicated=deduplicated)
    batches = utterances(recorded, max_length=max_length)
    seen = 0
    for batch in (next(iter(batches)) for _ in range(8)):
        for micro in batch:
            units, audio = micro["streams"]["units"], micro["audio"]
            assert (units.durations is not None) == deduplicated
            assert max_length is None or int(units.lengths.max()) <= max_length
            assert units.lengths.sum() == micro["tokens"]
            assert micro["seconds"] == pytest.approx(float(audio.lengths.sum()) / RATE)
            for b in range(len(units)):
                assert torch.equal(codes_of(audio.row(b).samples[0, 0]), units.row(b).expand().values[0, 0])
                seen += 1
    assert seen >= 8


def test_utterances_resume_and_are_dealt_to_ranks(recorded: Recorded) -> None:
    first = utterances(recorded)
    iterator = iter(first)
    next(iterator)
    second = utterances(recorded)
    second.load_state_dict(first.state_dict())
    a, b = next(iterator), next(iter(second))
    assert torch.equal(a[0]["audio"].samples, b[0]["audio"].samples)
    alone = iter(utterances(recorded))
    ranks = [iter(utterances(recorded, rank=r, world=2)) for r in (0, 1)]
    for _ in range(6):
        whole, parts = next(alone), [next(r) for r in ranks]
        tokens = sum(m["tokens"] for part in parts for m in part)
        assert tokens == sum(m["tokens"] for m in whole)


def test_utterances_without_sound_or_voice_are_left_out(recorded: Recorded) -> None:
    batches = utterances(recorded, voices=("ben",), num_voices=1)
    assert {int(v) for _ in range(4) for m in next(iter(batches)) for v in m["speaker"]} == {0}
    with pytest.raises(DataError, match=r"Keep manifest\.jsonl beside the shards"):
        utterances(Recorded.of(recorded.tokens, [None]))
    rows = np.flatnonzero(batches._sampler.plan.lengths)
    assert {int(r) % 4 for r in rows} == {1}
