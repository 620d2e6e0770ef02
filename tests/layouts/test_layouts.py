"""The layouts of published systems, as pictures; and what is refused."""

import textwrap
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from lalia.errors import LayoutError
from lalia.layouts import Chunks, Concat, Flat, Grid, Layout, Merge, Parallel, Switch
from lalia.streams import Continuous, Discrete, Streams, StreamSpec, TokenSequence

SPECS = {
    "text": StreamSpec(kind=Discrete(50), frame_rate=None),
    "units": StreamSpec(kind=Discrete(20), frame_rate=25.0),
    "slow": StreamSpec(kind=Discrete(5), frame_rate=12.5),
    "runs": StreamSpec(kind=Discrete(15), frame_rate=10.0, deduplicated=True),
    "pitch": StreamSpec(kind=Discrete(7), frame_rate=10.0, deduplicated=True),
    "codes": StreamSpec(kind=Discrete(9, num_codebooks=2), frame_rate=25.0),
    "heard": StreamSpec(kind=Continuous(3), frame_rate=50.0),
}


def tokens(name: str, n: int, **more: torch.Tensor) -> TokenSequence:
    kind = SPECS[name].kind
    if isinstance(kind, Discrete):
        values = torch.arange(n).remainder(kind.codebook_size).expand(1, kind.num_codebooks, n)
    else:
        values = torch.randn(1, n, kind.dim)
    return TokenSequence(values, torch.tensor([n]), **more)


def times(*seconds: float) -> torch.Tensor:
    return torch.tensor([seconds])


def assert_drawn(layout: Layout, streams: Streams, picture: str) -> None:
    assert layout.draw(layout.pack(streams, SPECS), SPECS) == textwrap.dedent(picture).strip("\n")


def spans(grid: Grid, names: tuple[str, ...]) -> list[tuple[str, int]]:
    """Which stream holds the steps of row 0, as runs."""
    out: list[tuple[str, int]] = []
    for s in range(int(grid.lengths[0])):
        (name,) = (n for n in names if (grid.positions[n][0, :, s] >= 0).any())
        out = [*out[:-1], (name, out[-1][1] + 1)] if out and out[-1][0] == name else [*out, (name, 1)]
    return out


def test_flat() -> None:
    assert_drawn(
        Flat("codes"),
        {"codes": tokens("codes", 3)},
        """
        codes:0   0  .  1  .  2  .  E
        codes:1   .  0  .  1  .  2  .
        """,
    )
    assert_drawn(Flat("units", closed=False), {"units": tokens("units", 3)}, "units     0  1  2")


def test_parallel_streams_end_each_by_itself() -> None:
    assert_drawn(
        Parallel(("text", "codes"), delays=(0, 1, 2)),
        {"text": tokens("text", 2), "codes": tokens("codes", 4)},
        """
        text      0  1  E  .  .  .
        codes:0   .  0  1  2  3  E
        codes:1   .  .  0  1  2  3
        """,
    )


def test_chunks_take_turns() -> None:
    assert_drawn(
        Chunks({"text": 2, "units": 4}),
        {"text": tokens("text", 3), "units": tokens("units", 7)},
        """
        text      0  1  .  .  .  .  2  E  .  .  .  .
        units     .  .  0  1  2  3  .  .  4  5  6  E
        """,
    )


def test_merge_goes_by_time() -> None:
    """Units of 1, 2, 1, 1 frames and pitches of 3 and 2: of two that begin together, the first named comes first."""
    assert_drawn(
        Merge(("pitch", "runs")),
        {
            "runs": tokens("runs", 4, durations=torch.tensor([[1, 2, 1, 1]])),
            "pitch": tokens("pitch", 2, durations=torch.tensor([[3, 2]])),
        },
        """
        pitch     0  .  .  1  .  .  E  .
        runs      .  0  1  .  2  3  .  E
        """,
    )


def test_merge_of_clocks_multiplexes_and_ends_on_time() -> None:
    assert_drawn(
        Merge(("slow", "units")),
        {"slow": tokens("slow", 2), "units": tokens("units", 6)},
        """
        slow      0  .  .  1  .  .  E  .  .  .
        units     .  0  1  .  2  3  .  4  5  E
        """,
    )


def test_switch_marks_the_spans() -> None:
    layout = Switch(("units", "text"))
    streams = {
        "units": tokens("units", 3, times=times(0.0, 0.1, 0.9)),
        "text": tokens("text", 2, times=times(0.3, 0.5)),
    }
    assert_drawn(
        layout,
        streams,
        """
        switch     0  .  .  1  .  .  2  .  E
        units      .  0  1  .  .  .  .  2  .
        text       .  .  .  .  0  1  .  .  .
        """,
    )
    grid = layout.pack(streams, SPECS)
    # The markers say which stream opens, and the end closes everything.
    assert grid.values["switch"][grid.present("switch")].tolist() == [0, 1, 0, 2]


def test_switch_needs_no_times_for_one_stream_alone() -> None:
    """Rows of text alone and of speech alone are half of what such models are trained on."""
    text = TokenSequence(torch.ones((2, 1, 3), dtype=torch.long), torch.tensor([3, 0]))
    runs = TokenSequence(torch.ones((2, 1, 2), dtype=torch.long), torch.tensor([0, 2]))
    layout = Switch(("runs", "text"))
    back = layout.unpack(layout.pack({"text": text, "runs": runs}, SPECS), SPECS)
    assert back["text"].lengths.tolist() == [3, 0]
    assert back["runs"].lengths.tolist() == [0, 2]
    assert [back["switch"].row(b).values[0, 0].tolist() for b in range(2)] == [[1], [0]]
    with pytest.raises(LayoutError, match="'runs' has no times"):
        layout.pack({"text": replace(text, lengths=torch.tensor([3, 1])), "runs": runs}, SPECS)


def test_concat_of_features_and_switch() -> None:
    assert_drawn(
        Concat((Flat("heard"), Switch(("text",)))),
        {"heard": tokens("heard", 2), "text": tokens("text", 2)},
        """
        heard      0  1  .  .  .  .
        switch     .  .  0  .  .  E
        text       .  .  .  0  1  .
        """,
    )


def test_long_grids_are_cut() -> None:
    layout = Flat("units")
    grid = layout.pack({"units": tokens("units", 30)}, SPECS)
    assert layout.draw(grid, SPECS, width=3) == "units     0  1  2 ..."


def test_glm_4_voice() -> None:
    """13 text, 26 speech, then what is left of 20 text tokens with the end, which counts as a cell; then speech."""
    layout = Chunks({"text": 13, "units": 26})
    grid = layout.pack({"text": tokens("text", 20), "units": tokens("units", 99)}, SPECS)
    assert spans(grid, layout.streams) == [("text", 13), ("units", 26), ("text", 8), ("units", 74)]


def test_moshi() -> None:
    """Text and semantic codes at their frame, the acoustic codebooks one step later (arXiv:2410.00037 §3.4.4)."""
    specs = {
        "text": StreamSpec(kind=Discrete(32000), frame_rate=12.5),
        "moshi": StreamSpec(kind=Discrete(2048, num_codebooks=8), frame_rate=12.5),
        "user": StreamSpec(kind=Discrete(2048, num_codebooks=8), frame_rate=12.5),
    }
    books = (0, 1, 1, 1, 1, 1, 1, 1)
    layout = Parallel(("text", "moshi", "user"), delays=(0, *books, *books), closed=False)
    n = 5
    codes = TokenSequence(torch.zeros((1, 8, n), dtype=torch.long), torch.tensor([n]))
    text = TokenSequence(torch.zeros((1, 1, n), dtype=torch.long), torch.tensor([n]))
    grid = layout.pack({"text": text, "moshi": codes, "user": codes}, specs)
    assert grid.num_steps == n + 1
    for stream in ("moshi", "user"):
        first = (grid.positions[stream][0] == 0).int().argmax(dim=1)
        assert tuple(first.tolist()) == books


def test_mini_omni() -> None:
    """A text stream and seven codebooks, each a step after the one before (arXiv:2408.16725 §3.2)."""
    specs = {
        "text": StreamSpec(kind=Discrete(100), frame_rate=None),
        "snac": StreamSpec(kind=Discrete(4096, num_codebooks=7), frame_rate=12.0),
    }
    layout = Parallel(("text", "snac"), delays=tuple(range(8)))
    snac = TokenSequence(torch.zeros((1, 7, 4), dtype=torch.long), torch.tensor([4]))
    text = TokenSequence(torch.zeros((1, 1, 6), dtype=torch.long), torch.tensor([6]))
    grid = layout.pack({"text": text, "snac": snac}, specs)
    # The last code of codebook 6 is at step 3 + 7.
    assert grid.num_steps == 11
    assert [int((p == 0).int().argmax()) for p in grid.positions["snac"][0]] == [1, 2, 3, 4, 5, 6, 7]


def test_spectron_prompt_text_features() -> None:
    """Features may come last; they have no end."""
    layout = Concat((Flat("text"), Flat("heard")))
    grid = layout.pack({"text": tokens("text", 2), "heard": tokens("heard", 3)}, SPECS)
    assert spans(grid, layout.streams) == [("text", 3), ("heard", 3)]


def test_the_order_of_turns_counts() -> None:
    """Layouts that differ only in the order of a mapping are laid out each in its own."""
    streams = {"text": tokens("text", 2), "units": tokens("units", 2)}
    for sizes in ({"text": 1, "units": 1}, {"units": 1, "text": 1}):
        layout = Concat((Chunks(sizes), Flat("slow")))
        grid = layout.pack({**streams, "slow": tokens("slow", 0)}, SPECS)
        assert spans(grid, layout.streams)[0] == (next(iter(sizes)), 1)


def test_an_empty_batch_of_nothing() -> None:
    layout = Flat("units", closed=False)
    grid = layout.pack({"units": tokens("units", 0)}, SPECS)
    assert grid.num_steps == 0
    assert layout.unpack(grid, SPECS)["units"].num_tokens == 0
    assert layout.draw(grid, SPECS) == "units"


def units(**change: torch.Tensor) -> Streams:
    return {"units": replace(tokens("units", 3), **change)}


@pytest.mark.parametrize(
    ("layout", "streams", "message"),
    [
        (Flat("units"), units(values=torch.full((1, 1, 3), 20)), r"code 20, outside 0\.\.19"),
        (Flat("units"), units(values=torch.full((1, 1, 3), -1)), r"code -1, outside"),
        (Flat("units"), units(values=torch.zeros((1, 2, 3), dtype=torch.long)), r"shape \(1, 2, 3\)"),
        (Flat("units"), units(values=torch.zeros((1, 3, 1))), "float32 values"),
        (Flat("heard"), {"heard": TokenSequence(torch.zeros(1, 4, 2), torch.tensor([4]))}, r"shape \(1, 4, 2\)"),
        (Flat("units"), units(lengths=torch.tensor([4])), "3 tokens, but a row of length 4"),
        (Flat("units"), {"text": tokens("text", 2)}, "'units' is missing; got text"),
        (Switch(("units", "text")), {"text": tokens("text", 2)}, "'units' is missing"),
        (Flat("mel"), {"mel": tokens("units", 2)}, "stream 'mel', but the model has"),
        (Parallel(("units",), delays=(0, 1)), units(), "2 delays for 1 codebooks"),
        (Parallel(("codes",), delays=(1, 0)), {"codes": tokens("codes", 2)}, "Delay codebook 0 least"),
        (Merge(("units", "text")), {**units(), "text": tokens("text", 2)}, "'text' has no times"),
        (Merge(("units", "codes")), {**units(), "codes": tokens("codes", 2)}, "'codes' has 2 codebooks"),
        (Switch(("codes",)), {"codes": tokens("codes", 2)}, "'codes' has 2 codebooks"),
        (
            Parallel(("units", "slow")),
            {**units(), "slow": TokenSequence(torch.zeros((2, 1, 1), dtype=torch.long), torch.tensor([1, 1]))},
            "rows",
        ),
        (
            Switch(("units", "text")),
            {
                **units(),
                "text": tokens("text", 0),
                "switch": TokenSequence(torch.ones(1, 1, 1).long(), torch.ones(1).long()),
            },
            "its markers do not fit",
        ),
    ],
)
def test_streams_that_do_not_fit_are_refused(layout: Layout, streams: Streams, message: str) -> None:
    with pytest.raises(LayoutError, match=message) as caught:
        layout.pack(streams, SPECS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Parallel(("a",), delays=(-1,)), "none below 0"),
        (lambda: Parallel(()), "Name at least one"),
        (lambda: Parallel(("a", "a")), "each once"),
        (lambda: Chunks({}), "Name at least one"),
        (lambda: Chunks({"a": 0}), "at least 1"),
        (lambda: Merge(("a", "b", "a")), "a, b, a"),
        (lambda: Switch(("a",), marker="a"), "each once"),
        (lambda: Concat((Flat("a"), Parallel(("b", "a")))), "each once"),
    ],
)
def test_layouts_that_make_no_sense_are_refused(make: Callable[[], Layout], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        make()
