"""What a caller may tell a cursor: limits, whole streams, ends inside of what is known."""

import pytest
import torch

from lalia.errors import LayoutError
from lalia.layouts import Cell, Choice, Concat, Cursor, Flat, Laid, Layout, Merge, Parallel, Switch, grid_of
from lalia.streams import Continuous, Discrete, Streams, StreamSpec, TokenSequence

SPECS = {
    "units": StreamSpec(kind=Discrete(20), frame_rate=25.0),
    "runs": StreamSpec(kind=Discrete(15), frame_rate=25.0, deduplicated=True),
    "text": StreamSpec(kind=Discrete(30, end=29), frame_rate=None),
    "codes": StreamSpec(kind=Discrete(9, num_codebooks=3), frame_rate=25.0),
    "heard": StreamSpec(kind=Continuous(4), frame_rate=50.0),
}


def codes(*ids: int, times: list[float] | None = None) -> TokenSequence:
    at = None if times is None else torch.tensor([times])
    return TokenSequence(torch.tensor(ids, dtype=torch.long).reshape(1, 1, -1), torch.tensor([len(ids)]), times=at)


def say(cursor: Cursor, *values: int | torch.Tensor) -> list[Laid]:
    """Answer the next step, choosing the first candidate where there is a choice."""
    assert cursor.step is not None
    cells = [slot.cells[0] if isinstance(slot, Choice) else slot for slot in cursor.step if slot is not None]
    return cursor.lay([Laid(c, v) for c, v in zip(cells, values, strict=True)])


def test_an_end_inside_of_what_is_known_is_an_ordinary_token() -> None:
    """A chat holds an end of text after every turn."""
    cursor = Cursor(Flat("text"), SPECS, {"text": codes(1, 29, 2)})
    laid = []
    while (step := cursor.known_step()) is not None:
        laid.append([i.value for i in cursor.lay(step)])
    assert laid == [[1], [29], [2]]
    assert cursor.step == (Cell("text", 0, 3),)
    say(cursor, 29)
    assert cursor.step is None


def test_the_id_of_an_end_is_an_ordinary_token_where_the_stream_does_not_end() -> None:
    cursor = Cursor(Flat("text", closed=False), SPECS, {})
    for t in range(3):
        assert cursor.step == (Cell("text", 0, t),)
        say(cursor, 29)
    assert cursor.step == (Cell("text", 0, 3),)


def test_the_other_codebooks_of_an_end_are_dropped() -> None:
    cursor = Cursor(Parallel(("codes",), delays=(0, 1, 1)), SPECS, {})
    assert len(say(cursor, 1)) == 1
    assert len(say(cursor, 2, 1, 1)) == 3
    kept = say(cursor, 9, 2, 2)
    assert [i.cell for i in kept] == [Cell("codes", 0, 2), Cell("codes", 1, 1), Cell("codes", 2, 1)]
    assert cursor.step is None
    cursor = Cursor(Parallel(("codes",)), SPECS, {})
    assert [i.cell for i in say(cursor, 9, 2, 2)] == [Cell("codes", 0, 0)]
    assert cursor.step is None


def test_streams_that_end_together() -> None:
    """Features have no end of their own; a stream that is ahead of them says when they are over."""
    layout = Concat((Flat("text"), Parallel(("units", "heard"), delays=(0, 1), together={"heard": "units"})))
    cursor, frame = Cursor(layout, SPECS, {"text": codes(1)}, complete=["text"]), torch.zeros(4)
    while (step := cursor.known_step()) is not None:
        cursor.lay(step)
    for t in range(2):
        assert cursor.step == (Cell("units", 0, t), Cell("heard", 0, t - 1) if t else None)
        say(cursor, 3, *([frame] if t else []))
    say(cursor, 20, frame)
    # Two units, and two frames: the end of the units is none.
    assert cursor.step is None
    with pytest.raises(LayoutError, match="'heard' together with 'units', which is not ahead of it"):
        list(layout_of(delays=(1, 1)))
    for wrong in ({"x": "units"}, {"heard": "x"}):
        with pytest.raises(LayoutError, match="Name two of its streams that end"):
            Parallel(("units", "heard"), together=wrong)
    with pytest.raises(LayoutError, match="which do not end"):
        Parallel(("units", "heard"), together={"heard": "units"}, closed=False)


def layout_of(delays: tuple[int, int]) -> list[Cell | Choice]:
    """The first step of two streams that end together."""
    layout = Parallel(("units", "heard"), delays=delays, together={"heard": "units"})
    return [slot for slot in Cursor(layout, SPECS, {}).step or () if slot is not None]


def test_a_limit_stops_a_stream_and_the_plan_goes_on() -> None:
    cursor = Cursor(Concat((Flat("units"), Flat("text"))), SPECS, {}, limits={"units": 2})
    say(cursor, 1)
    say(cursor, 2)
    assert cursor.step == (Cell("text", 0, 0),)


def test_what_is_known_is_laid_past_a_limit() -> None:
    cursor = Cursor(Flat("units"), SPECS, {"units": codes(1, 2, 3)}, limits={"units": 2})
    for value in (1, 2, 3):
        assert cursor.known_step() == [Laid(Cell("units", 0, value - 1), value)]
        say(cursor, value)
    assert cursor.step is None


def test_a_whole_stream_is_laid_with_its_end() -> None:
    cursor = Cursor(Concat((Flat("units"), Flat("text"))), SPECS, {"units": codes(7)}, complete=["units"])
    assert cursor.known_step() == [Laid(Cell("units", 0, 0), 7)]
    say(cursor, 7)
    assert cursor.known_step() == [Laid(Cell("units", 0, 1), 20)]
    say(cursor, 20)
    assert cursor.known_step() is None
    assert cursor.step == (Cell("text", 0, 0),)


def test_only_the_model_can_tell_when_runs_begin() -> None:
    layout = Merge(("runs", "text"))
    cursor = Cursor(layout, SPECS, {})
    assert cursor.step == (Choice((Cell("runs", 0, 0), Cell("text", 0, 0))),)
    cursor.lay([Laid(Cell("text", 0, 0), 3)])
    assert cursor.step == (Choice((Cell("runs", 0, 0), Cell("text", 0, 1))),)
    cursor.lay([Laid(Cell("text", 0, 1), 29)])
    # The text has ended, and nothing is left to choose.
    assert cursor.step == (Cell("runs", 0, 0),)


def test_a_span_has_a_token_and_is_then_closed_by_the_model() -> None:
    cursor = Cursor(Switch(("runs", "text")), SPECS, {})
    assert cursor.step == (Cell("switch", 0, 0),)
    say(cursor, 1)
    assert cursor.step == (Cell("text", 0, 0),)
    say(cursor, 4)
    assert cursor.step == (Choice((Cell("text", 0, 1), Cell("switch", 0, 1))),)
    cursor.lay([Laid(Cell("switch", 0, 1), 2)])
    assert cursor.step is None


@pytest.mark.parametrize("limits", [{"text": 1}, {"switch": 1, "text": 1}])
def test_a_switch_to_what_may_not_go_on_is_the_end(limits: dict[str, int]) -> None:
    cursor = Cursor(Switch(("runs", "text")), SPECS, {}, limits=limits)
    say(cursor, 1)
    say(cursor, 4)
    if "switch" not in limits:
        assert cursor.step == (Cell("switch", 0, 1),)
        say(cursor, 1)
    assert cursor.step is None


def test_features_are_laid_as_they_are() -> None:
    features = torch.randn(1, 3, 4)
    known: Streams = {"heard": TokenSequence(features, torch.tensor([2]))}
    layout: Layout = Concat((Flat("heard"), Flat("units")))
    cursor = Cursor(layout, SPECS, known, complete=["heard"])
    rows = []
    while (step := cursor.known_step()) is not None:
        rows.append(cursor.lay(step))
    grid = grid_of([rows, []], layout.all_specs(SPECS))
    assert torch.equal(grid.values["heard"][0], features[0, :2])
    assert grid.lengths.tolist() == [2, 0]
    assert grid.positions["units"].shape == (2, 1, 2)


@pytest.mark.parametrize(
    ("known", "complete", "limits"),
    [({"mel": codes(1)}, [], {}), ({}, ["mel"], {}), ({}, [], {"mel": 3})],
)
def test_unknown_streams_are_refused(known: Streams, complete: list[str], limits: dict[str, int]) -> None:
    with pytest.raises(LayoutError, match="'mel' is not in the layout, which has units"):
        Cursor(Flat("units"), SPECS, known, complete=complete, limits=limits)


def test_what_comes_from_outside_is_known_from_then_on() -> None:
    layout = Parallel(("units", "codes"), delays=(0, 0, 1, 1), closed=False)
    cursor = Cursor(layout, SPECS, {})
    assert cursor.given(Cell("codes", 0, 0)) is None
    heard = torch.arange(12).reshape(1, 3, 4) % 9
    cursor.extend("codes", TokenSequence(heard[:, :, :1], torch.tensor([1])))
    assert cursor.given(Cell("codes", 2, 0)) == 8
    say(cursor, 5, 0)
    # Of more than there is, only what there is.
    cursor.extend("codes", TokenSequence(heard[:, :, 1:], torch.tensor([2])))
    cursor.extend("codes", TokenSequence(heard[:, :, 3:], torch.tensor([1])))
    assert [cursor.given(Cell("codes", 1, t)) for t in range(5)] == [4, 5, 6, 7, None]
    cursor.drop("codes", 2)
    cursor.drop("codes", 1)
    assert [cursor.given(Cell("codes", 1, t)) for t in (2, 3, 4)] == [6, 7, None]
    cursor.extend("codes", TokenSequence(heard[:, :, :1], torch.tensor([1])))
    assert cursor.given(Cell("codes", 1, 4)) == 4
    with pytest.raises(LayoutError, match="not in the layout"):
        cursor.extend("text", codes(1))
    with pytest.raises(LayoutError, match="outside"):
        cursor.extend("units", codes(20))


def test_features_from_outside() -> None:
    cursor = Cursor(Parallel(("heard", "units"), closed=False), SPECS, {})
    frames = torch.randn(1, 5, 4)
    for t in range(5):
        cursor.extend("heard", TokenSequence(frames[:, t : t + 1], torch.tensor([1])))
        cursor.drop("heard", t)
        found = cursor.given(Cell("heard", 0, t))
        assert isinstance(found, torch.Tensor)
        assert torch.equal(found, frames[0, t])
        assert cursor.given(Cell("heard", 0, t + 1)) is None
