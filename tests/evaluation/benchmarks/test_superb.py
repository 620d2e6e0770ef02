"""SUPERB's tasks by the tables that s3prl leaves."""

from pathlib import Path
from typing import Any

import pytest

from lalia.errors import DataError
from lalia.evaluation.benchmarks import Bench
from lalia.evaluation.benchmarks.superb import SUPERB
from lalia.evaluation.suites import METRICS

BY_NAME = {b.name: b for b in SUPERB}
RTTM = "SPEAKER r 1 0.00 {} <NA> <NA> {} <NA> <NA>\n"
FILES: dict[str, dict[str, str]] = {
    "superb-pr": {"test-ref.ark": "a HH AH\nb HH\n", "test-hyp.ark": "a HH\nb HH\n", "dev-ref.ark": "a X\n"},
    "superb-asr": {"test-clean-noLM-ref.ark": "a GO ON\n", "test-clean-noLM-hyp.ark": "a GO\n"},
    "superb-ks": {"test_truth.txt": "a yes\nb no\n", "test_predict.txt": "a yes\nb yes\n", "dev_truth.txt": ""},
    "superb-ic": {"test_truth.csv": "a,on,light,hall\nb,off,fan,hall\n", "test_predict.csv": "a,on,light,hall\n"},
    "superb-sid": {"test_truth.txt": "a id1\nb id2\n", "test_predict.txt": "a id1\nb id1\n"},
    "superb-er": {
        "test_fold1_truth.txt": "a hap\n",
        "test_fold1_predict.txt": "a hap\n",
        "test_fold2_truth.txt": "a sad\n",
        "test_fold2_predict.txt": "a hap\n",
    },
    "superb-asv": {
        "test_predict.txt": "s1-v-1_s1-w-2 0.5\ns1-v-1_s2-w-2 [0.7]\n",
        "test_truth.txt": "",
        "veri_test_class.txt": "1 wav/s1/v/1.wav wav/s1/w/2.wav\n0 wav/s1/v/1.wav wav/s2/w/2.wav\n",
    },
    "superb-sd": {"rttm": RTTM.format(2, "A"), "hyp_0.4_11.rttm": RTTM.format(1, "x")},
    "superb-sf": {"test-ref.ark": "a to B-city rome E-city\n", "test-hyp.ark": "a B-day x E-day\n"},
    "superb-st": {"output-st-test.tsv": 'utt_id\thyp\tref\na\teins "zwei drei\teins "zwei drei vier fünf\n'},
}
VALUES = {"superb-pr": 1 / 3, "superb-asv": 1.0, "superb-sf": 0.0}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", BY_NAME)
def test_every_task_has_its_tables(tmp_path: Path, name: str) -> None:
    for package in {"superb-sd": ["scipy"], "superb-st": ["sacrebleu"]}.get(name, []):
        pytest.importorskip(package)
    found = BY_NAME[name].run(Bench(None, "m", "m", path=write(tmp_path, FILES[name])))
    assert found.figures[0].key == METRICS[BY_NAME[name].task][0]
    if name != "superb-st":
        assert found.figures[0].estimate.value == pytest.approx(VALUES.get(name, 0.5))
    assert "asked" in found.notes[-1]


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("superb-ks", {}, r"has no \*_truth.txt"),
        ("superb-ic", {"test_truth.csv": "a,b\n", "test_predict.csv": ""}, "line 1 is no file with an action"),
        ("superb-asv", {"test_predict.txt": "a b\n"}, "has a score that is no number"),
        ("superb-asv", {"test_predict.txt": "a 1\n"}, "has no veri_test"),
        ("superb-asv", {"test_predict.txt": "a 1\n", "veri_test.txt": "x\n"}, "line 1 is no trial"),
        ("superb-sd", {"rttm": "", "hyp_1.rttm": "", "hyp_2.rttm": ""}, "Leave the one that was best"),
        ("superb-st", {"output-st-test.tsv": "a\tb\n"}, "has the columns a, b"),
        ("superb-st", {"output-st-test.tsv": "utt_id\thyp\tref\na\n"}, "line 2 has 1 fields"),
    ],
)
def test_bad_tables(tmp_path: Path, name: str, files: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        BY_NAME[name].run(Bench(None, "m", "m", path=write(tmp_path, files)))


def test_the_command(tmp_path: Path, tiny: Path, lalia: Any) -> None:
    ran = lalia("eval", tiny, "superb-ks", "--data", write(tmp_path, FILES["superb-ks"]))
    assert ran.status == 0, ran.err
    assert "2 asked, 2 answered" in ran.out
    assert lalia("eval", tiny, "superb-ks").err.startswith("superb-ks: SUPERB, KS")
