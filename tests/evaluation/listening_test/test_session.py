"""A test as it goes: resumed, crashed, refused, and handed over."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lalia.errors import ConfigError, DataError, OutputError
from lalia.evaluation.listening_test import ListeningTest, Material, Refused, Task, read_ratings
from lalia.evaluation.listening_test.records import Table
from lalia.evaluation.listening_test.session import setup_of

Make = Callable[..., Material]


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def rate(test: ListeningTest, clock: Clock, who: str, task: Task, rating: int = 3) -> Task:
    clock.now += 10
    assert task.token is not None
    return test.rate(who, task.token, rating, 1)


def test_a_test_from_one_end_to_the_other(make: Make, tmp_path: Path) -> None:
    clock, folder = Clock(), tmp_path / "test"
    test = ListeningTest(make(3, 6), folder, kind="mos", clock=clock)
    for who in ("ann", "bob", "cyd"):
        task = test.next(who)
        seen = 0
        while task.token is not None:
            assert (task.done, task.total) == (seen, 9)
            task = rate(test, clock, who, task, task.choose or 3)
            seen += 1
        assert (task.done, seen) == (9, 9)
    records = read_ratings(folder)
    counts = Counter((r.item, r.system) for r in records if r.role == "rating")
    assert len(counts) == 18
    assert set(counts.values()) == {1}
    assert all(r.rating == r.expected for r in records if r.role == "instruction")
    assert records[0].seconds == 10.0
    assert records[0].time == "2027-01-15T08:00:10.000+00:00"
    test.close()


def test_what_was_begun_goes_on(make: Make, tmp_path: Path) -> None:
    clock, folder, material = Clock(), tmp_path / "test", make(2, 6)
    test = ListeningTest(material, folder, kind="mos", clock=clock)
    task = rate(test, clock, "ann", rate(test, clock, "ann", test.next("ann")))
    with pytest.raises(ConfigError, match="being served already"):
        ListeningTest(material, folder, kind="mos")
    test.close()
    # The plug was pulled while a row was written.
    with open(folder / "ratings.csv", "ab") as file:
        file.write(b"2027-01-15T08:00:10")
    assert len(read_ratings(folder)) == 2
    again = ListeningTest(material, folder, kind="mos", clock=clock)
    assert again.next("ann") == task, "the same screen, by the same tokens"
    rate(again, clock, "ann", task, 5)
    assert [r.rating for r in read_ratings(folder)] == [3, 3, 5]
    assert again.next("bob").done == 0
    again.close()
    for other in ({"kind": "pmos"}, {"seed": 1}, {"ratings": 3}):
        with pytest.raises(ConfigError, match=f"begun with other {next(iter(other))}"):
            ListeningTest(material, folder, **({"kind": "mos"} | other))  # type: ignore[arg-type]
    path = material.items[0].sounds["secret-0"]
    path.write_bytes(material.items[1].sounds["secret-0"].read_bytes())
    with pytest.raises(ConfigError, match="begun with other sound"):
        ListeningTest(material, folder, kind="mos")


def test_what_is_refused(make: Make, tmp_path: Path) -> None:
    clock = Clock()
    test = ListeningTest(make(2, 6), tmp_path / "test", kind="mos", clock=clock, codes=["ann", "bob"])
    task = test.next("ann")
    assert task.token is not None

    def refused(why: str, *given: object) -> None:
        with pytest.raises(Refused) as caught:
            test.rate(*given)  # type: ignore[arg-type]
        assert caught.value.reason == why

    refused("early", "ann", task.token, 3, 1)
    clock.now += 10
    refused("rating", "ann", task.token, 6, 1)
    refused("screen", "ann", "0" * 32, 3, 1)
    refused("code", "bob", task.token, 3, 1)
    test.rate("ann", task.token, 3, 1)
    refused("screen", "ann", task.token, 4, 1)
    with pytest.raises(Refused):
        test.next("eve")
    assert [r.rating for r in read_ratings(tmp_path / "test")] == [3]
    assert test.sound("0" * 32) is None
    test.close()
    with pytest.raises(ConfigError, match="cannot be typed"):
        ListeningTest(make(2, 6), tmp_path / "other", kind="mos", codes=["=1+1"])


def test_what_one_left_another_takes(make: Make, tmp_path: Path) -> None:
    clock = Clock()
    test = ListeningTest(make(2, 2), tmp_path / "test", kind="mos", clock=clock)
    for who, ratings in (("done", 2), ("left", 1), ("here", 0)):
        task = test.next(who)
        for _ in range(ratings):
            task = rate(test, clock, who, task)
    clock.now += 25 * 3600
    rate(test, clock, "here", test.next("here"))
    first = test.next("new").sounds
    test.next("newer")
    slots = {row["listener"]: row["slot"] for row in test._listeners.rows}
    assert slots == {"done": "0", "left": "1", "here": "2", "new": "1", "newer": "3"}
    assert test.next("left").done == 1, "and he may come back"
    assert first != test.next("left").sounds
    test.close()


def test_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    table = Table(path, ("a", "b"))
    table.add({"a": 'x, "y"', "b": None})
    assert Table(path, ("a", "b")).rows == [{"a": 'x, "y"', "b": ""}] == table.rows

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        table.add({"a": "1", "b": "2"})
    assert path.read_text() == 'a,b\n"x, ""y""",\n', "no half of a row stays"
    with pytest.raises(DataError, match="does not begin with"):
        Table(path, ("a", "c"))
    path.write_text("a,b\n1\n")
    with pytest.raises(DataError, match="has 1 columns of 2"):
        Table(path, ("a", "b"))


def test_folders_that_are_none(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test.json cannot be read"):
        setup_of(tmp_path)
    (tmp_path / "test.json").write_text("[]")
    with pytest.raises(DataError, match="not that of a listening test"):
        setup_of(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_ratings(tmp_path)
    test = ListeningTest(make(1, 2), tmp_path / "test", kind="mos")
    test.close()
    with open(tmp_path / "test" / "ratings.csv", "a") as file:
        file.write("t,ann,0,0,rating,i,s,,,good,,1\n")
    with pytest.raises(DataError, match=r"ratings.csv:2 is no rating"):
        read_ratings(tmp_path / "test")
    with pytest.raises(DataError, match="is wrong"):
        ListeningTest(make(1, 2), tmp_path / "test", kind="mos")
