"""StoryCloze, SALMon, and which folder is what."""

from pathlib import Path

import pytest

from lalia.audio import Audio
from lalia.errors import DataError
from lalia.evaluation.benchmarks import Bench
from lalia.evaluation.benchmarks.minimal_pairs import MinimalPairs
from lalia.evaluation.benchmarks.told import Told
from lalia.evaluation.pair_scores import score_pairs
from lalia.evaluation.pairs import Pair, save_pairs
from lalia.evaluation.public_pairs import holds_pairs, read_pairs


def test_stories_are_paired_by_id(tmp_path: Path, make_tone) -> None:
    """slamkit orders files by the number in front: 1, 01 and 001 then have any order."""
    for name in ("1", "01", "001", "10", "a_b"):
        make_tone(tmp_path / f"tSC/{name}_correct.wav", 0.5)
        make_tone(tmp_path / f"tSC/{name}_incorrect.wav", 0.1)
    (tmp_path / "tSC/1_correct.txt").write_text("It ends.\n")
    (tmp_path / "tSC/notes.txt").write_text("nothing")
    pairs = read_pairs(tmp_path / "tSC")
    assert read_pairs(tmp_path) == pairs
    assert {p.id for p in pairs} == {"1", "01", "001", "10", "a_b"}
    for p in pairs:
        assert (p.task, p.split) == ("StoryCloze-tSC", None)
        assert (p.positive.name, p.negative.name) == (f"{p.id}_correct.wav", f"{p.id}_incorrect.wav")
        assert p.positive_text == ("It ends." if p.id == "1" else None)


def test_a_beginning_of_its_own_is_joined_to_both_endings(tmp_path: Path, make_tone) -> None:
    story = tmp_path / "sSC"
    make_tone(story / "7_mutual.wav", 0.3, tenths=4)
    make_tone(story / "7_correct.wav", 0.5, tenths=2)
    make_tone(story / "7_incorrect.wav", 0.1, tenths=3, rate=8000)
    for part in ("mutual", "correct", "incorrect"):
        (story / f"7_{part}.txt").write_text(part)
    (pair,) = read_pairs(story, sounds=tmp_path / "sounds")
    assert pair.split == pytest.approx(0.4)
    assert (pair.prompt_text, pair.positive_text, pair.negative_text) == ("mutual", "correct", "incorrect")
    whole = Audio.load(pair.positive)
    assert whole.seconds == pytest.approx(0.6)
    assert float(whole.cut(0.4).samples.abs().max()) == pytest.approx(0.5, abs=1e-3)
    assert Audio.load(pair.negative).seconds == pytest.approx(0.7)
    # What is there is not made again, and what changed is.
    before = pair.positive.stat().st_mtime_ns
    assert read_pairs(story, sounds=tmp_path / "sounds") == [pair]
    assert pair.positive.stat().st_mtime_ns == before
    make_tone(story / "7_correct.wav", 0.5, tenths=3)
    (other,) = read_pairs(story, sounds=tmp_path / "sounds")
    assert Audio.load(other.positive).seconds == pytest.approx(0.7)
    make_tone(story / "8_correct.wav")
    with pytest.raises(DataError, match=r"no 8_incorrect\.wav"):
        read_pairs(story, sounds=tmp_path / "sounds")
    make_tone(story / "8_incorrect.wav")
    with pytest.raises(DataError, match=r"no 8_mutual\.wav"):
        read_pairs(story, sounds=tmp_path / "sounds")


def salmon(folder: Path, make_tone, n: int = 3) -> Path:
    for i in range(n):
        make_tone(folder / f"sample_{i}_0.wav", 0.5)
        make_tone(folder / f"sample_{i}_1.wav", 0.1)
    return folder


def test_salmon_folders(tmp_path: Path, make_tone) -> None:
    salmon(tmp_path / "speaker_consistency", make_tone, 11)
    salmon(tmp_path / "bg_alignment", make_tone)
    pairs = read_pairs(tmp_path)
    assert len(pairs) == 14
    part = read_pairs(tmp_path / "speaker_consistency")
    assert [p.id for p in part] == [str(i) for i in range(11)]
    assert {p.task for p in pairs} == {"SALMon-speaker_consistency", "SALMon-bg_alignment"}
    assert (part[10].positive.name, part[10].negative.name) == ("sample_10_0.wav", "sample_10_1.wav")
    (tmp_path / "bg_alignment/sample_1_1.wav").unlink()
    with pytest.raises(DataError, match=r"no sample_1_1\.wav"):
        read_pairs(tmp_path)


def test_salmon_from_parquet(tmp_path: Path, make_tone) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def cell(level: float) -> dict[str, object]:
        return {"bytes": make_tone(tmp_path / "x.wav", level).read_bytes(), "path": "x.wav"}

    rows = [{"ind": i, "positive_audio": cell(0.5), "negative_audio": cell(0.1)} for i in range(3)]
    for part in ("rir_consistency", "all"):
        (tmp_path / f"hub/{part}").mkdir(parents=True)
        for shard in range(2):
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"hub/{part}/train-{shard:05}-of-00002.parquet")
    pairs = read_pairs(tmp_path / "hub", sounds=tmp_path / "sounds")
    assert {p.task for p in pairs} == {"SALMon-rir_consistency"}
    assert [p.id for p in pairs] == list("012345")
    assert read_pairs(tmp_path / "hub", sounds=tmp_path / "sounds") == pairs
    assert float(Audio.load(pairs[4].positive).samples.max()) == pytest.approx(0.5, abs=1e-3)
    assert float(Audio.load(pairs[4].negative).samples.max()) == pytest.approx(0.1, abs=1e-3)
    assert {p.task for p in read_pairs(tmp_path / "hub/all", sounds=tmp_path / "sounds")} == {"SALMon-all"}
    (tmp_path / "hub/bad").mkdir()
    table = pa.Table.from_pylist([{"positive_audio": "a", "negative_audio": "b"}])
    pq.write_table(table, tmp_path / "hub/bad/0.parquet")
    with pytest.raises(DataError, match="row 0 has no recording in positive_audio"):
        read_pairs(tmp_path / "hub/bad", sounds=tmp_path / "sounds")


def test_what_holds_no_pairs(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/gold.csv").write_text("a,b\n1,2\n")
    (tmp_path / "other/broken.parquet").write_text("no")
    for folder in (tmp_path, tmp_path / "other"):
        assert not holds_pairs(folder)
        with pytest.raises(DataError, match="holds no pairs that are known"):
            read_pairs(folder)
    assert not holds_pairs(tmp_path / "none")
    with pytest.raises(DataError, match="does not exist"):
        read_pairs(tmp_path / "none")


def test_a_manifest_is_read_too(tmp_path: Path, make_tone) -> None:
    pairs = [Pair("t", "0", make_tone(tmp_path / "a.wav"), make_tone(tmp_path / "b.wav"))]
    save_pairs(pairs, tmp_path / "pairs.jsonl")
    assert read_pairs(tmp_path) == read_pairs(tmp_path / "pairs.jsonl") == pairs
    assert holds_pairs(tmp_path)


class LikesLoud:
    """A model of one token that finds loud sound likely."""

    def score(self, audio: Audio):
        return Told([float(audio.samples.abs().max())], [0.0], 0.0)


def test_the_benchmark_takes_them(tmp_path: Path, make_gold, make_lexical, make_tone, monkeypatch) -> None:
    def refuse(self: Bench) -> None:
        raise DataError("Nobody reads. Ask somebody.")

    monkeypatch.setattr(Bench, "text_lm", property(refuse))
    make_gold(tmp_path / "data", make_lexical([("cat", 0), ("dog", 7), ("cow", 50)]))
    # One word of the vocabulary goes wrong, in one voice of two.
    make_tone(tmp_path / "data/v1a.wav", 0.9)
    found = MinimalPairs().run(Bench(LikesLoud(), "loud", "loud", path=tmp_path / "data"))
    values = {f.key: f.estimate.value for f in found.figures}
    assert values["sWUGGY.sum"] == values["sWUGGY.mean"] == pytest.approx(2.5 / 3)
    assert values["sWUGGY.in_vocab_sum"] == values["sWUGGY.in_vocab_mean"] == pytest.approx(1.5 / 2)
    assert set(found.details["kinds"]["sWUGGY"]) == {"oov", "6-20", "21-100"}
    scored = score_pairs(LikesLoud(), read_pairs(tmp_path / "data"))
    assert scored["tasks"]["sWUGGY"]["in_vocab"]["sum"]["value"] == pytest.approx(1.5 / 2)


def test_the_command_takes_them(lalia, tiny: Path, tmp_path: Path, make_tone) -> None:
    for text in (("eval", tiny, "pairs", "--data", tmp_path), ("eval", tiny, "pairs", "--data", tmp_path / "none")):
        ran = lalia(*text)
        assert (ran.status, ran.out) == (2, ""), ran.err
        assert "holds no pairs that are known" in ran.err or "none does not exist. Name a folder of pairs" in ran.err
    salmon(tmp_path / "part", make_tone, 2)
    ran = lalia("eval", tiny, "pairs", "--data", tmp_path, "--json")
    assert ran.status == 0, ran.err
    assert ran.json["results"]["pairs"]["figures"][0]["key"] == "SALMon-part.sum"
