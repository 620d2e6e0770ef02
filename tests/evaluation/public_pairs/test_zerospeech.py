"""sWUGGY and sBLIMP: their tables, submissions, and scores as a data frame has them."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import DataError
from lalia.evaluation.pair_scores import judge_pairs, judge_scores
from lalia.evaluation.pairs import Pair
from lalia.evaluation.public_pairs import (
    frequency_band,
    read_gold,
    read_pairs,
    read_submission,
    score_submission,
    submission_scores,
    write_submission,
)


@given(st.lists(st.one_of(st.integers(0, 300), st.sampled_from([0, 1, 4, 5, 6, 19, 20, 21, 99, 100, 101])), min_size=1))
def test_bands_are_those_of_pandas(counts: list[int]) -> None:
    pd = pytest.importorskip("pandas")
    cut = pd.cut(
        pd.Series(counts, dtype=float),
        [0, 1, 5, 20, 100, math.inf],
        labels=["oov", "1-5", "6-20", "21-100", ">100"],
        right=False,
    )
    assert [frequency_band(c) for c in counts] == list(cut)


def test_a_count_of_five_is_in_the_band_above() -> None:
    assert [frequency_band(c) for c in (0, 1, 5, 20, 100)] == ["oov", "1-5", "6-20", "21-100", ">100"]
    for bad in (-1, math.nan, math.inf):
        with pytest.raises(DataError, match="has the frequency"):
            frequency_band(bad)


def test_swuggy(tmp_path: Path, make_gold, make_lexical) -> None:
    make_gold(tmp_path / "lexical/dev", make_lexical([("cat", 0), ("dog", "5.0"), ("cow", "")]))
    for where in (tmp_path, tmp_path / "lexical", tmp_path / "lexical/dev", tmp_path / "lexical/dev/gold.csv"):
        pairs = read_pairs(where)
        assert len(pairs) == 6
        assert {(p.task, p.id, p.voice) for p in pairs} == {("sWUGGY-dev", i, v) for i in "012" for v in "vw"}
        assert {p.id: p.kind for p in pairs} == {"0": "oov", "1": "6-20", "2": None}
    one = next(p for p in pairs if p.key == ("sWUGGY-dev", "1", "w"))
    assert (one.positive.name, one.negative.name) == ("w1b.wav", "w1a.wav")
    assert (one.positive_text, one.negative_text) == ("dog", "dogx")


def sentences(n: int = 2) -> list[dict[str, object]]:
    return [
        {
            "id": i,
            "filename": f"{t}{s}{v}{i}{c}",
            "voice": v,
            "type": t,
            "subtype": s,
            "correct": c,
            "transcription": "x",
        }
        for t, s in (("np", "a"), ("np", "b"), ("wh", "a"))
        for v in "vw"
        for i in range(n)
        for c in (0, 1)
    ]


def test_sblimp_ids_are_those_of_their_type_and_subtype(tmp_path: Path, make_gold) -> None:
    pairs = read_pairs(make_gold(tmp_path / "syntactic/test", sentences()).parent)
    assert len(pairs) == len({p.key for p in pairs}) == 12
    assert {p.task for p in pairs} == {"sBLIMP-test"}
    assert {(p.kind, p.subtype) for p in pairs} == {("np", "a"), ("np", "b"), ("wh", "a")}
    scores = {p.positive: 1.0 for p in pairs} | {p.negative: 0.0 for p in pairs}
    wrong = next(p for p in pairs if p.kind == "wh")
    scores[wrong.negative] = 1.0
    found = judge_scores(pairs, scores)
    assert found["tasks"]["sBLIMP-test"]["score"]["accuracy"]["value"] == pytest.approx(5.75 / 6)
    assert found["kinds"]["sBLIMP-test"]["wh"]["score"]["value"] == pytest.approx(1.75 / 2)
    assert found["kinds"]["sBLIMP-test"]["np"]["score"]["n"] == 4
    assert "in_vocab" not in found["tasks"]["sBLIMP-test"]


words = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 5, 20, 100, 101]), st.lists(st.tuples(*[st.integers(0, 3)] * 2), min_size=2, max_size=2)
    ),
    min_size=1,
    max_size=15,
)


@settings(max_examples=40)
@given(words)
def test_scores_are_those_of_a_data_frame(rows) -> None:
    """The definition, in the table language in which it was written."""
    pd = pytest.importorskip("pandas")
    pairs, scores, flat = [], {}, []
    for n, (count, voices) in enumerate(rows):
        for voice, (a, b) in zip("vw", voices, strict=True):
            pair = Pair("t", str(n), Path(f"{n}{voice}+"), Path(f"{n}{voice}-"), voice, frequency_band(count))
            pairs.append(pair)
            scores |= {pair.positive: float(a), pair.negative: float(b)}
            flat.append({"id": n, "count": count, "score": 0.5 * (a == b) + (a > b)})
    by_pair = pd.DataFrame(flat).groupby("id").mean()
    by_pair["band"] = pd.cut(by_pair["count"], [0, 1, 5, 20, 100, math.inf], right=False, labels=list("oabcd"))
    bands = by_pair.groupby("band", observed=True).score.agg(["count", "mean"])
    found = judge_scores(pairs, scores)["tasks"]["t"]
    weighted = (bands["count"] * bands["mean"]).sum() / bands["count"].sum()
    assert found["score"]["accuracy"]["value"] == pytest.approx(weighted)
    known = bands.drop(index="o", errors="ignore")
    if len(known) == len(bands):
        assert "in_vocab" not in found
    elif len(known):
        weighted = (known["count"] * known["mean"]).sum() / known["count"].sum()
        assert found["in_vocab"]["score"]["value"] == pytest.approx(weighted)
        assert found["in_vocab"]["score"]["n"] == known["count"].sum()
    else:
        assert found["in_vocab"] == {}


def test_a_submission_comes_back(tmp_path: Path, make_gold, make_lexical, told) -> None:
    from lalia.evaluation.pair_scores import Member

    table = make_gold(tmp_path / "dev", make_lexical([("cat", 0), ("dog", 7)]), sounds=False)
    pairs = read_gold(table)
    members = {}
    for n, p in enumerate(sorted(pairs, key=lambda p: p.key)):
        members[p.key] = (Member(told(3, -3.0)), Member(told(3, -2.0 - n)))
    judged = judge_pairs(pairs, members, {})
    scores = submission_scores(pairs, judged["items"])
    path = write_submission(scores, tmp_path / "dev.txt")
    assert path.read_text().splitlines()[:2] == ["v0a -2.0", "v0b -3.0"]
    assert read_submission(path) == scores
    found = score_submission(table, path)["tasks"]["sWUGGY-dev"]
    assert found["score"]["accuracy"]["value"] == judged["tasks"]["sWUGGY-dev"]["sum"]["accuracy"]["value"] == 0.625
    assert found["in_vocab"]["score"]["value"] == judged["tasks"]["sWUGGY-dev"]["in_vocab"]["sum"]["value"] == 1.0
    with pytest.raises(DataError, match="has no score"):
        submission_scores(pairs, judged["items"][1:])
    with pytest.raises(DataError, match="has no 'pmi'"):
        submission_scores(pairs, judged["items"], "pmi")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match=r"dev.txt lacks 'v0a' and 0 more"):
        score_submission(table, path)
    path.write_text(path.read_text() + "v0a 1\nzz 1\n")
    with pytest.raises(DataError, match=r"gold.csv lacks 'zz'"):
        score_submission(table, path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no scores"),
        ("a 1\na 2\n", "line 2 has 'a' a second time"),
        ("a\n", "line 1 is 'a'"),
        ("a nan\n", "line 1 is 'a nan'"),
        ("a 1 2\n", "line 1 is 'a 1 2'"),
    ],
)
def test_bad_submissions(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dev.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_submission(tmp_path / "dev.txt")


def test_what_cannot_be_handed_in(tmp_path: Path) -> None:
    for scores in ({}, {"a": math.nan}, {"a b": 1.0}):
        with pytest.raises(DataError):
            write_submission(scores, tmp_path / "dev.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_submission(tmp_path / "none.txt")


def test_bad_tables(tmp_path: Path, make_gold, make_lexical) -> None:
    rows = make_lexical([("cat", 3)])

    def refused(rows: list, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read_gold(make_gold(tmp_path / "x", rows, sounds=False))

    refused(rows[1:], "has 'w0b' without a counterpart")
    refused([*rows, rows[0]], "line 6 is a second 0 w")
    refused([{**rows[0], "correct": "yes"}, *rows[1:]], "line 2 has correct 'yes'")
    refused([{**r, "frequency": "often"} for r in rows], "0 w: could not convert")
    refused([{**r, "frequency": "-1"} for r in rows], "has the frequency -1")
    refused([{"a": 1, "correct": 0}], "has the columns a, correct")
    (tmp_path / "x/gold.csv").write_text("id,filename,voice,frequency,word,correct\n1,a\n")
    with pytest.raises(DataError, match="line 2 has fewer fields"):
        read_gold(tmp_path / "x/gold.csv")
    (tmp_path / "x/gold.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_gold(tmp_path / "x/gold.csv")
    make_gold(tmp_path / "y", rows, sounds=False)
    with pytest.raises(DataError, match="nor are 3 more of 4 recordings"):
        read_pairs(tmp_path / "y")
