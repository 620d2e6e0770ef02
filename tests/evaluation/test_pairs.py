import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.data import Manifest, Word
from lalia.errors import DataError
from lalia.evaluation.pair_scores import REDUCTIONS, Member, judge_pairs, score_pairs
from lalia.evaluation.pairs import Pair, load_pairs, pairs_identity, save_pairs
from lalia.evaluation.speech_pairs import TASKS, make_speech_pairs
from lalia.evaluation.statistics import bootstrap_ratio


class Told10:
    """Tokens of a tenth of a second each."""

    end = 0.0

    def __init__(self, log_probs: list[float]) -> None:
        self.log_probs, self.tokens, self.sum = log_probs, len(log_probs), sum(log_probs)
        self.starts = [0.1 * i for i in range(len(log_probs))]


class Reads:
    """A model that scores by a table, by the length of the file in samples."""

    def __init__(self, table, told) -> None:
        self.table, self.told, self.asked = table, told, []

    def score(self, audio: Audio):
        n = audio.samples.shape[-1]
        self.asked.append(n)
        value = self.table[n]
        if value is None:
            raise DataError("Too hard. Give another.")
        return self.told(*value)


@pytest.fixture
def file_of(tmp_path: Path, tone_speech):
    """``file_of(n)``: a recording of n samples."""

    def make(n: int) -> Path:
        path = tmp_path / f"{n}.wav"
        if not path.exists():
            audio, _ = tone_speech([440, 550, 660])
            Audio(audio.samples[..., :n], 16000).save(path)
        return path

    return make


def test_accuracy_ties_and_both_reductions(file_of, told) -> None:
    # Pair 0: the positive wins by sum and loses by mean; 1: a tie in both; 2: loses both.
    table = {1000: (10, -20.0), 1001: (20, -30.0), 1002: (4, -8.0), 1003: (4, -9.0)}
    pairs = [
        Pair("t", "0", file_of(1000), file_of(1001)),
        Pair("t", "1", file_of(1002), file_of(1002)),
        Pair("t", "2", file_of(1003), file_of(1002)),
        Pair("u", "0", file_of(1002), file_of(1003)),
    ]
    model = Reads(table, told)
    result = score_pairs(model, pairs)
    t = result["tasks"]["t"]
    assert (t["asked"], t["answered"], t["failed"]) == (3, 3, 0)
    assert t["sum"]["accuracy"]["value"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert t["mean"]["accuracy"]["value"] == pytest.approx((0 + 0.5 + 0) / 3)
    assert t["sum"]["ties"] == t["mean"]["ties"] == 1
    assert t["positive_tokens"] == 6
    assert result["tasks"]["u"]["mean"]["accuracy"]["value"] == 1
    assert result["tasks"]["u"]["mean"]["wilson"]["low"] < 0.5
    # Each recording is scored once, whatever number of pairs it is in.
    assert sorted(model.asked) == [1000, 1001, 1002, 1003]


def test_the_order_of_the_pairs_changes_nothing(file_of, told) -> None:
    table = {1000 + i: (3, -float(i * 7 % 5)) for i in range(8)}
    pairs = [Pair("t", str(i), file_of(1000 + i), file_of(1000 + (i + 3) % 8)) for i in range(8)]
    assert score_pairs(Reads(table, told), pairs) == score_pairs(Reads(table, told), pairs[::-1])


def test_failures_are_counted_and_named(file_of, told, tmp_path: Path) -> None:
    table = {1000: (1, -1.0), 1001: None, 1002: (1, float("nan"))}
    good, hard, broken = file_of(1000), file_of(1001), file_of(1002)
    pairs = [
        Pair("t", "0", good, hard),
        Pair("t", "1", good, tmp_path / "none.wav"),
        Pair("t", "2", good, broken),
        Pair("t", "3", good, good),
    ]
    result = score_pairs(Reads(table, told), pairs)
    assert result["tasks"]["t"]["asked"] == 4
    assert result["tasks"]["t"]["answered"] == 1
    assert result["tasks"]["t"]["failed"] == 3
    assert [f["id"] for f in result["failures"]] == ["0", "1", "2"]
    assert "Too hard" in result["failures"][0]["reason"]
    assert "none.wav does not exist" in result["failures"][1]["reason"]


def test_all_failed(file_of, told) -> None:
    result = score_pairs(Reads({1000: None}, told), [Pair("t", "0", file_of(1000), file_of(1000))])
    assert result["tasks"]["t"]["answered"] == 0
    assert result["tasks"]["t"]["sum"]["accuracy"]["value"] is None


def member(n: int, total: float) -> Member:
    return Member(Told10([total / n] * n))


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from("xyz"), *[st.tuples(st.integers(1, 5), st.integers(-5, 5))] * 2
        ),
        min_size=1,
        max_size=20,
        unique_by=lambda row: row[:2],
    ),
    st.randoms(),
)
def test_accuracy_is_that_of_the_definition(rows, random) -> None:
    """The mean over pairs of the mean over voices, whatever the order."""
    pairs = [Pair("t", pair, Path("p"), Path("n"), voice) for pair, voice, *_ in rows]
    members = {p.key: (member(*a), member(*b)) for p, (*_, a, b) in zip(pairs, rows, strict=True)}
    wins: dict[str, dict[str, list[float]]] = {"sum": {}, "mean": {}}
    for pair, _, (n, a), (m, b) in rows:
        wins["sum"].setdefault(pair, []).append((a > b) + (a == b) / 2)
        wins["mean"].setdefault(pair, []).append((a * m > b * n) + (a * m == b * n) / 2)
    found = judge_pairs(pairs, members, {})
    for name, voices in wins.items():
        naive = sum(sum(w) / len(w) for w in voices.values()) / len(voices)
        assert found["tasks"]["t"][name]["accuracy"]["value"] == pytest.approx(naive)
        assert found["tasks"]["t"][name]["accuracy"]["n"] == len(voices)
    random.shuffle(pairs)
    assert judge_pairs(pairs, members, {}) == found


def test_what_follows_the_prompt_is_scored_by_itself(told) -> None:
    """Tokens of 0.1 s each: the prompt takes three of ten, and pulls the other way."""
    positive = Member(Told10([-9.0] * 3 + [-1.0] * 7), 0.3, told(7, -8.0))
    negative = Member(Told10([-1.0] * 3 + [-2.0] * 7), 0.3, told(7, -15.0))
    pair = Pair("t", "1", Path("p"), Path("n"), kind="k")
    found = judge_pairs([pair], {pair.key: (positive, negative)}, {})
    item = found["items"][0]
    assert item["positive"] == {
        "tokens": 10,
        "end": 0.0,
        "sum": -34.0,
        "mean": -3.4,
        "continuation": -7.0,
        "continuation_mean": -1.0,
        "pmi": 1.0,
    }
    assert item["wins"] == {"sum": 0.0, "mean": 0.0, "continuation": 1.0, "continuation_mean": 1.0, "pmi": 0.5}
    assert found["kinds"]["t"]["k"]["continuation"]["value"] == 1.0
    assert set(found["tasks"]["t"]) >= set(REDUCTIONS)


def test_pairs_of_one_making_are_drawn_together() -> None:
    """Twelve pairs of which six say the same as the other six are as sure as six."""
    wins = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    pairs = [Pair("t", f"{i}{twin}", Path("p"), Path("n"), group=f"{i}") for i in range(6) for twin in "ab"]
    members = {p.key: (member(2, wins[int(p.group or 0)]), member(2, 0.5)) for p in pairs}
    found = judge_pairs(pairs, members, {})["tasks"]["t"]["sum"]["accuracy"]
    assert found == bootstrap_ratio(wins, [1.0] * 6).to_dict() | {"n": 6}
    alone = judge_pairs([replace(p, group=None) for p in pairs], members, {})["tasks"]["t"]["sum"]["accuracy"]
    assert alone["value"] == found["value"]
    assert alone["high"] - alone["low"] < found["high"] - found["low"]


def test_a_difference_that_rounding_makes_is_a_tie() -> None:
    pair = Pair("t", "1", Path("p"), Path("n"))
    for more, win in ((9e-5, 0.5), (2e-4, 1.0)):
        found = judge_pairs([pair], {pair.key: (member(10, -30.0 + more), member(10, -30.0))}, {})
        assert found["items"][0]["wins"] == {"sum": win, "mean": win}


def test_manifest_round_trip(tmp_path: Path, file_of) -> None:
    pairs = [Pair("t", "\u00e4", file_of(1000), file_of(1001)), Pair("u", "\u00e4", Path("/far/x.wav"), file_of(1001))]
    path = save_pairs(pairs, tmp_path / "pairs.jsonl")
    assert load_pairs(path) == pairs
    assert json.loads(path.read_text().splitlines()[0])["positive"] == "1000.wav"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no pairs"),
        ("{", "line 1 is not JSON"),
        ('{"task": "t", "id": "1", "positive": "a"}', "line 1: It is not an object with the texts"),
        ('{"task": "t", "id": "", "positive": "a", "negative": "b"}', "line 1: A pair has the id ''"),
        ('{"task": "t", "id": "1", "positive": "a", "negative": "b"}\n' * 2, "line 2: 't' has '1' twice"),
    ],
)
def test_bad_manifests(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_pairs(path)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_pairs(tmp_path / "none.jsonl")


def test_identity_is_of_the_sound_and_not_of_the_order(file_of, tmp_path: Path) -> None:
    pairs = [Pair("t", "0", file_of(1000), file_of(1001)), Pair("t", "1", file_of(1001), file_of(1002))]
    found = pairs_identity(pairs)
    assert found == pairs_identity(pairs[::-1])
    Audio.load(file_of(1001)).save(file_of(1000))
    assert pairs_identity(pairs) != found


def test_pairs_from_speech(scales: Manifest, tmp_path: Path, listener, likes_rising) -> None:
    pairs, left_out = make_speech_pairs(scales, tmp_path / "pairs", words=lambda u, audio: u.words)
    assert not left_out
    assert {p.task for p in pairs} == set(TASKS)
    assert load_pairs(tmp_path / "pairs/pairs.jsonl") == pairs
    for p in pairs:
        heard = [listener([Audio.load(f)])[0].split() for f in (p.positive, p.negative)]
        assert Audio.load(p.positive).samples.shape == Audio.load(p.negative).samples.shape
        assert sorted(heard[0]) == sorted(heard[1])
        assert heard[0] == sorted(heard[0], key=lambda n: int(n[1:]))
        if p.task == "reversed":
            assert heard[1] == heard[0][::-1]
        assert (heard[0] == heard[1]) == (p.task == "spliced")
    result = score_pairs(likes_rising(), pairs)
    for task, expected in {"reversed": 1.0, "reordered": 1.0, "rephrased": 1.0, "spliced": 0.5}.items():
        assert result["tasks"][task]["sum"]["accuracy"]["value"] == expected


def test_pairs_are_the_same_each_time(scales: Manifest, tmp_path: Path) -> None:
    made = [
        pairs_identity(
            make_speech_pairs(scales, tmp_path / str(n), words=lambda u, a: u.words, tasks=["reordered"], seed=seed)[0]
        )
        for n, seed in enumerate((0, 0, 1))
    ]
    assert made[0] == made[1] != made[2]


def test_what_cannot_be_made_is_left_out(scales: Manifest, tmp_path: Path) -> None:
    def one_word_for_the_first(u, audio):
        return u.words[:1] if u.id == "s0" else u.words

    pairs, left_out = make_speech_pairs(
        scales, tmp_path / "pairs", words=one_word_for_the_first, tasks=["reversed", "reordered"]
    )
    assert [(x.task, x.id) for x in left_out] == [("reordered", "s0")]
    assert len(pairs) == 19
    with pytest.raises(DataError, match="No pair could be made: s0 can be cut into"):
        make_speech_pairs(scales[:1], tmp_path / "none", words=one_word_for_the_first, tasks=["reordered"])
    with pytest.raises(DataError, match="no task 'sung'"):
        make_speech_pairs(scales, tmp_path / "none", words=one_word_for_the_first, tasks=["sung"])


def test_ids_cannot_lead_out_of_the_folder(scales: Manifest, tmp_path: Path) -> None:
    from dataclasses import replace

    sly = Manifest([replace(scales[0], id="../../x"), replace(scales[1], id=".._.._x")])
    pairs, _ = make_speech_pairs(sly, tmp_path / "pairs", words=lambda u, a: u.words, tasks=["reversed"])
    files = {f.resolve() for p in pairs for f in (p.positive, p.negative)}
    assert len(files) == 4
    assert {f.parent for f in files} == {(tmp_path / "pairs").resolve()}


def test_words_may_overlap_or_be_out_of_the_recording(scales: Manifest, tmp_path: Path) -> None:
    wild = (Word("a", 0.0, 1.5), Word("b", 1.0, 1.2), Word("c", 1.2, 1.2), Word("d", 9.0, 99.0))
    pairs, _ = make_speech_pairs(scales[:1], tmp_path / "pairs", words=lambda u, a: wild, tasks=["reordered"])
    assert Audio.load(pairs[0].positive).samples.shape == scales[0].load().samples.shape


def test_all_that_is_known_of_a_pair_goes_to_disk_and_back(tmp_path: Path) -> None:
    whole = Pair(
        "t", "1", tmp_path / "a.wav", tmp_path / "b.wav", "slt", "agreement", "number", 1.5, "The", "cat", 'k"'
    )
    pairs = [
        whole,
        Pair("t", "1", tmp_path / "a.wav", tmp_path / "b.wav", "rms"),
        Pair("u", "1", Path("/a"), Path("/b")),
    ]
    assert load_pairs(save_pairs(pairs, tmp_path / "pairs.jsonl")) == pairs


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("split", -1.0, "the split -1.0"),
        ("split", "2", "the split '2'"),
        ("voice", 3, "the voice 3"),
        ("x", 1, "unknown x"),
    ],
)
def test_what_is_wrong_with_a_pair_is_said_with_its_line(field, value, message, tmp_path: Path) -> None:
    row = {"task": "t", "id": "1", "positive": "a.wav", "negative": "b.wav", field: value}
    (tmp_path / "pairs.jsonl").write_text("\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=f"line 2: .*{message}"):
        load_pairs(tmp_path / "pairs.jsonl")
