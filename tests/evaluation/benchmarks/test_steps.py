"""First the model is asked, then its answers are scored: without it, after a stop, and though some of it fails."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lalia.audio import Audio
from lalia.data import Manifest, Utterance
from lalia.errors import ConfigError, DataError, OutputError
from lalia.evaluation.benchmarks import BENCHMARKS, evaluate, questions, table
from lalia.evaluation.benchmarks.kept import Item, Kept
from lalia.evaluation.benchmarks.steps import answers_of

KEPT = ("answers", "transcribe", "say", "tone", "robustness")
LIMIT = {"robustness": 12, "tone": 1}


class Stopped(BaseException):
    """As if the process were killed."""


def plain(found: Any) -> dict[str, Any]:
    """All that a benchmark found, but what it saw only in passing."""
    data: dict[str, Any] = json.loads(json.dumps(found["results"]))
    return data


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("against", [None, "cascade"])
def test_kept_answers_are_scored_without_any_model(
    name: str, against: str | None, fake: Any, make_bench: Any, tmp_path: Path
) -> None:
    wrong = {questions()[1].text: "Where is my coat?"}
    peer = {} if against is None else {"peer": fake(heard=wrong, label="peer"), "peer_name": against}
    options = {"folder": tmp_path, "limit": LIMIT.get(name, 3)}
    first = evaluate(make_bench(fake(), **peer, **options), [name])
    assert first["results"][name]["counts"]["failed"] == 0
    bench = make_bench(fake(), **options, score_only=True, peer_name=against)
    bench.model = None
    bench.recognizer = Nobody(bench.recognizer)
    assert plain(evaluate(bench, [name])) == plain(first)
    # Where it was not asked, it cannot be scored.
    other = make_bench(fake(), **options | {"folder": tmp_path / "other"}, score_only=True)
    with pytest.raises(ConfigError, match="Run it without --score-only first"):
        evaluate(other, [name])


class Nobody:
    """A recogniser that hears nothing, and is not asked to."""

    def __init__(self, real: Any) -> None:
        self.name, self.version = real.name, real.version

    def __call__(self, recordings: Any) -> list[str]:
        raise AssertionError("it was asked")


@pytest.mark.parametrize("name", KEPT)
def test_a_run_that_was_stopped_goes_on(name: str, fake: Any, make_bench: Any, tmp_path: Path) -> None:
    options = {"limit": LIMIT.get(name, 6)}
    calls: list[str] = []

    def counted(model: Any, last: float) -> Any:
        """Calls are counted, and after so many of them the process is gone."""
        for method in ("transcribe", "say", "dialogue"):
            whole = getattr(model, method)

            def call(*args: Any, _whole: Callable[..., Any] = whole, _name: str = method, **settings: Any) -> Any:
                if len(calls) >= last:
                    raise Stopped
                calls.append(_name)
                return _whole(*args, **settings)

            setattr(model, method, call)
        return model

    benchmark = BENCHMARKS[name]
    whole = benchmark.run(make_bench(counted(fake(), float("inf")), **options))
    needed = len(calls)
    calls.clear()
    with pytest.raises(Stopped):
        benchmark.run(make_bench(counted(fake(), needed // 2), folder=tmp_path, **options))
    calls.clear()
    found = benchmark.run(make_bench(counted(fake(), float("inf")), folder=tmp_path, **options))
    assert [f.estimate for f in found.figures] == [f.estimate for f in whole.figures]
    assert found.counts == whole.counts
    # One more than the rest: that of which nobody knows whether it was answered; and one to warm up.
    assert 0 < len(calls) <= needed - needed // 2 + 4
    calls.clear()
    benchmark.run(make_bench(counted(fake(), 0), folder=tmp_path, **options))


def refuses(fake: Any, text: str) -> Any:
    """A model that will not hear one sentence, nor say it, nor read it."""
    model = fake()
    hear, say = model.transcribe, model.say

    def transcribe(audio: Audio) -> str:
        if (heard := str(hear(audio))) == text:
            raise DataError("Not this one. Give another.")
        return heard

    def read(asked: str) -> Audio:
        if asked == text:
            raise DataError("Not this one. Give another.")
        return Audio(say(asked).samples, 16_000)

    model.transcribe, model.say = transcribe, read
    return model


@pytest.mark.parametrize("name", ["answers", "transcribe", "say"])
def test_one_that_fails_is_counted_and_loses_alone(name: str, fake: Any, make_bench: Any) -> None:
    from lalia.evaluation.benchmarks import sentences

    text = sentences()[2] if name == "say" else questions()[2].text
    result = evaluate(make_bench(refuses(fake, text), limit=4), [name])
    part = result["results"][name]
    counts = part["counts"]
    asked = 8 if name == "say" else 4
    assert (counts["asked"], counts["answered"], counts["failed"]) == (asked, asked - 1, 1)
    assert set(counts["failures"].values()) == {"Not this one. Give another."}
    assert f"({asked} asked, {asked - 1} answered, 1 failed)" in table(result)
    assert "the first of those that failed: Not this one" in table(result)
    figures = {f["key"]: f["value"] for f in part["figures"]}
    # It never pays.
    if name == "answers":
        assert figures["same_content"] == figures["heard_right"] == figures["overlap"] == 3 / 4
    else:
        lost, words = part["items"][2]["words"], sum(x["words"] for x in part["items"][:4])
        assert figures["wer"] == pytest.approx(lost / words)


def test_a_peer_that_fails_takes_nothing_from_the_model(fake: Any, make_bench: Any) -> None:
    peer = refuses(fake, questions()[2].text)
    found = BENCHMARKS["answers"].run(make_bench(fake(), peer=peer, peer_name="cascade", limit=4))
    by_key = {f.key: f.estimate.value for f in found.figures}
    assert (by_key["same_content"], by_key["peer_same_content"]) == (1.0, 3 / 4)
    assert found.counts is not None
    assert (found.counts["failed"], found.counts["peer"]["failed"]) == (0, 1)


def test_a_tone_that_fails_is_no_pair(fake: Any, make_bench: Any) -> None:
    from lalia.evaluation.benchmarks.tone import deliveries
    from lalia.evaluation.memory import fingerprint

    model = fake()
    del model.known[fingerprint(dict(deliveries(1))["slow"])]
    hear = model.transcribe

    def transcribe(audio: Audio) -> str:
        if fingerprint(audio) not in model.known:
            raise DataError("Not this one. Give another.")
        return str(hear(audio))

    model.transcribe = transcribe
    found = BENCHMARKS["tone"].run(make_bench(model, limit=1))
    assert found.counts is not None
    assert found.counts["failures"] == {"1-slow": "Not this one. Give another."}
    (slow,) = (x for x in found.items if x["delivery"] == "slow")
    assert slow["differs"] is None
    assert found.notes == ["beside words alone: p = 1.0000 over 6 pairs"]


def test_unreadable_recordings_are_counted(fake: Any, make_bench: Any, tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"nothing")
    bad = Utterance("zz", tmp_path / "x.wav", duration=1.0, text="Some words.")
    data = Manifest([*(q.utterance for q in questions(2)), bad])
    found = BENCHMARKS["transcribe"].run(make_bench(fake(), data=data))
    assert found.counts is not None
    assert (found.counts["failed"], found.counts["peer"]["failed"]) == (1, 1)
    assert found.items[2]["errors"] == {"model": 2, "recognizer": 2}
    with pytest.raises(DataError, match="Nothing was written down"):
        BENCHMARKS["transcribe"].run(make_bench(fake(), data=Manifest([bad])))


def test_what_is_asked_for_several_is_asked_once(fake: Any, make_bench: Any, tmp_path: Path) -> None:
    model = fake()
    bench = make_bench(model, folder=tmp_path, limit=3)
    evaluate(bench, ["answers", "say", "latency"])
    # One to warm up.
    assert (model.log.count("fake spoken"), model.log.count("fake typed")) == (4, 3)
    model.log.clear()
    evaluate(make_bench(model, folder=tmp_path, limit=3), ["say", "answers"])
    assert model.log == []
    # Times of another process are not those of this one.
    evaluate(make_bench(model, folder=tmp_path, limit=3), ["latency"])
    assert model.log.count("fake spoken") == 4


def test_sounds_are_where_the_run_lies_now(fake: Any, make_bench: Any, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    first = evaluate(make_bench(fake(), folder=Path("kept"), limit=3), ["say"])
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "there" / "kept"
    again = make_bench(fake(), folder=kept, limit=3, score_only=True)
    assert evaluate(again, ["say"])["results"]["say"]["figures"] == first["results"]["say"]["figures"]
    # An answer without its sound is none.
    (kept / "say" / "audio" / "sentence-02.flac").unlink()
    with pytest.raises(ConfigError, match="1 of 3 items have no answer"):
        evaluate(make_bench(fake(), folder=kept, limit=3, score_only=True), ["say"])
    asked = evaluate(make_bench(fake(), folder=kept, limit=3), ["say"])
    assert asked["results"]["say"]["figures"] == first["results"]["say"]["figures"]


def test_fewer_items_than_are_kept(fake: Any, make_bench: Any, tmp_path: Path) -> None:
    options = {"folder": tmp_path}
    for name in ("transcribe", "answers"):
        evaluate(make_bench(fake(), limit=4, **options), [name])
        few = evaluate(make_bench(fake(), limit=2, **options), [name])["results"][name]
        assert few["counts"]["asked"] == len(few["items"]) == 2


def test_what_measures_a_model_at_work_is_not_scored_without_it(fake: Any, make_bench: Any, tmp_path: Path) -> None:
    bench = make_bench(fake(), folder=tmp_path, score_only=True)
    for name in ("latency", "memory", "turns", "speed"):
        with pytest.raises(ConfigError, match=f"{name} measures a model that works. Run it without --score-only."):
            evaluate(bench, [name])


def test_a_full_disk_is_no_answer() -> None:
    def ask(system: Any, items: Any) -> Any:
        raise OutputError("It cannot be written. Make room.")

    with pytest.raises(OutputError):
        answers_of(ask, None, [Item("a", {}, "")])


def test_what_is_kept_of_some_items() -> None:
    kept = Kept(None, {})
    a, b, c = (Item(name, {}, name) for name in "abc")
    kept.add(a, {"x": 1})
    kept.add(b, failure="No.")
    kept.add(c, {"x": 3})
    few = kept.of([c, b])
    assert few.answers == {"c": {"x": 3}}
    assert few.counts() == {"asked": 2, "answered": 1, "failed": 1, "failures": {"b": "No."}}
