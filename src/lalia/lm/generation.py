"""Generation: batched, row by row on the plan of the layout, each row ending by itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lalia.errors import LayoutError
from lalia.layouts import Cursor, Laid, Slot, check_streams, grid_of
from lalia.lm.drawing import Drawer
from lalia.lm.head import Row
from lalia.lm.sampling import Sampler
from lalia.streaming import State, select_rows
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence, nothing, pad_batch

if TYPE_CHECKING:
    from lalia.lm.model import SpeechLM

__all__ = ["HIDDEN", "Frames", "absorb", "collect", "generate", "known_steps", "start_rows"]

HIDDEN = "hidden"
"""The stream of hidden states that ``generate`` gives beside what it draws."""


@torch.inference_mode()
def generate(
    model: "SpeechLM",
    known: Streams | None,
    *,
    sampler: Sampler,
    complete: Sequence[str] = (),
    limits: Mapping[str, int] | None = None,
    max_steps: int | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int = 1,
    hidden_of: str | None = None,
    state: State | None = None,
) -> Iterator[Streams]:
    """Continue the known streams, and yield what is new after every LM step.

    :param known: what is there already, of any stream, rows of any length; None for nothing.
    :param complete: known streams of which nothing more comes. Streams without a head always are.
    :param limits: most tokens of a stream, the known ones counted; it stops there without an end.
    :param max_steps: most LM steps after the known ones.
    :param seeds: one per row; ``sampler.seed + row`` when not given.
    :param batch_size: rows when nothing is known.
    :param hidden_of: a stream; the hidden states from which its cells were drawn, the end included, come as stream
        ``hidden``, for the next language model.
    :param state: where earlier calls have left off: what is known comes behind all that. It is updated in place, and
        has seen everything but the last step that was made, which an end is. With it, something must be known.
    :yields: for each stream that gained whole frames, a TokenSequence of B rows (``lengths`` 0 where a row
        gained none).
    :raises LayoutError: ``known`` holds a stream that is not in the layout or not of its spec, or the model has
        to choose between streams that do not share a vocabulary.
    """
    drawer = Drawer(model, sampler)
    rows = start_rows(model, known or {}, sampler, complete, limits or {}, seeds, batch_size)
    num_rows = len(rows)
    prefix = [known_steps(row) for row in rows]
    frames = Frames(model.specs, model.ends, frozenset(model.layout.markers), num_rows)
    device = model.start.device
    grid = grid_of(prefix, model.specs).to(device)
    before = state is None
    if state is None:
        state = model.init_state(num_rows, capacity=grid.num_steps + 1 + min(max_steps or 256, 1024))
    elif not int(grid.lengths.min()):
        raise LayoutError("A row goes on from a state with nothing known. Give it at least one step.")
    hidden = model(grid, state, first=before).movedim(-2, 1)
    hidden = hidden[torch.arange(num_rows, device=device), grid.lengths - int(not before)]
    laid: list[list[Laid]] = []
    steps = 0
    while max_steps is None or steps < max_steps:
        running = [i for i, r in enumerate(rows) if r.runs]
        if not running:
            return
        if steps:
            if len(running) < len(rows):
                # Idle rows would cost as much as others at every step; moving the state costs about two steps, once.
                rows, laid = [rows[i] for i in running], [laid[i] for i in running]
                state = select_rows(state, torch.tensor(running, device=device))
            grid = grid_of([[items] for items in laid], model.specs)
            # Lengths stay where they are read.
            hidden = model(replace(grid.to(device), lengths=grid.lengths), state, first=False)[..., 0, :]
        laid = drawer.fill(rows, hidden)
        for i, row in enumerate(rows):
            if row.runs:
                given = {s for s in row.cursor.step or () if row.cursor.given(s) is not None}
                laid[i] = row.cursor.lay(laid[i])
                frames.add(row.index, laid[i], given)
                if hidden_of is not None and any(
                    cell.stream == hidden_of and cell.codebook == 0 and cell not in given for cell, *_ in laid[i]
                ):
                    frames.add_features(row.index, HIDDEN, model.hidden_of(hidden_of, hidden)[i])
        steps += 1
        emitted = frames.take()
        if emitted:
            yield emitted


@torch.inference_mode()
def absorb(model: "SpeechLM", known: Streams, state: State | None = None, *, capacity: int | None = None) -> State:
    """Take in known streams of one row, of which nothing is to be predicted yet.

    :param known: the beginning of the layout, or what comes behind it.
    :param state: of earlier calls, updated in place.
    :param capacity: steps for which a new state has room, these among them; 256 more than these when not given.
    :returns: the state, from which ``generate`` goes on.
    :raises LayoutError: as ``generate``.
    """
    done = tuple(s for s in model.specs if s not in model.heads)
    (row,) = start_rows(model, known, model.config.sampler, done, {}, None, 1)
    grid = grid_of([known_steps(row)], model.specs).to(model.start.device)
    if state is None:
        # The start comes before them.
        state = model.init_state(1, capacity=max(capacity or 0, grid.num_steps + (1 if capacity else 257)))
        model(grid, state)
    elif grid.num_steps:
        model(grid, state, first=False)
    return state


def collect(parts: Iterator[Streams]) -> Streams:
    """All that ``generate`` yields, joined along time, with ``times`` where the parts have them."""
    pieces: dict[str, list[list[TokenSequence]]] = {}
    for part in parts:
        for name, tokens in part.items():
            rows = pieces.setdefault(name, [[] for _ in range(len(tokens))])
            for b, n in enumerate(tokens.lengths.tolist()):
                if n:
                    rows[b].append(tokens.row(b))
    out: Streams = {}
    for name, rows in pieces.items():
        nothing = next(t for r in rows for t in r).cut(0, 0)
        out[name] = pad_batch([_joined(r or [nothing]) for r in rows])
    return out


def _joined(pieces: Sequence[TokenSequence]) -> TokenSequence:
    """Pieces of one row, one after another."""
    values = torch.cat([t.values for t in pieces], dim=2 if pieces[0].discrete else 1)
    times = [t.times for t in pieces if t.times is not None]
    return TokenSequence(
        values, torch.stack([t.lengths for t in pieces]).sum(0), times=torch.cat(times, dim=1) if times else None
    )


def start_rows(
    model: "SpeechLM",
    known: Streams,
    sampler: Sampler,
    complete: Sequence[str],
    limits: Mapping[str, int],
    seeds: Sequence[int] | None,
    batch_size: int,
) -> list[Row]:
    """The rows at the beginning of their plans."""
    specs, layout = model.specs, model.layout
    for name in (*known, *complete, *limits):
        if name not in specs:
            raise LayoutError(f"Stream {name!r} is not in the layout, which has {', '.join(specs)}. Fix the name.")
    check_streams(known, specs)
    num_rows = len(next(iter(known.values()))) if known else batch_size
    if seeds is not None and len(seeds) != num_rows:
        raise LayoutError(f"There are {len(seeds)} seeds for {num_rows} rows. Give one for each.")
    if known and layout.markers:
        # The markers of what is known are known too; of a stream that is not, nothing has been said yet.
        silent = {s: nothing(specs[s], num_rows) for s in specs if s not in known and s not in layout.markers}
        marked = layout.mark({**known, **silent}, specs)
        known = {s: t for s, t in marked.items() if s not in silent}
    done = (*complete, *(s for s in specs if s not in model.heads))
    rows = []
    for b in range(num_rows):
        own = {n: k.row(b) for n, k in known.items()}
        history = {n: k.values[0, 0].tolist() for n, k in own.items() if k.discrete}
        cursor = Cursor(layout, specs, own, complete=done, limits=limits)
        rows.append(Row(b, cursor, sampler.seed + b if seeds is None else seeds[b], history=history))
    return rows


def known_steps(row: Row) -> list[list[Laid]]:
    """Lay all that is known before the first step of which something is not."""
    steps = []
    while (laid := row.cursor.known_step()) is not None:
        steps.append(row.cursor.lay(laid))
    return steps


class Frames:
    """The frames that are complete: with delays, the codebooks of a frame come one by one."""

    def __init__(
        self, specs: Mapping[str, StreamSpec], ends: frozenset[str], hidden: frozenset[str], num_rows: int
    ) -> None:
        self._num_rows, self._hidden = num_rows, hidden
        self._codebooks = {n: s.kind.num_codebooks for n, s in specs.items() if isinstance(s.kind, Discrete)}
        self._end_ids = {n: s.kind.end_id for n, s in specs.items() if n in ends and isinstance(s.kind, Discrete)}
        self._open: dict[tuple[int, str, int], dict[int, int]] = {}
        self._new: dict[str, list[list[list[int]]]] = {}
        self._features: dict[str, list[list[Tensor]]] = {}

    def add(self, row: int, laid: Sequence[Laid], given: set[Slot]) -> None:
        """Take the cells of a step of a row; those that were given are not new."""
        for cell, value, _ in laid:
            stream, codebook, t = cell
            if cell in given or stream in self._hidden or (codebook == 0 and value == self._end_ids.get(stream)):
                continue
            if not isinstance(value, int):
                self.add_features(row, stream, value)
                continue
            frame = self._open.setdefault((row, stream, t), {})
            frame[codebook] = value
            if len(frame) == self._codebooks[stream]:
                del self._open[row, stream, t]
                whole = [frame[k] for k in range(len(frame))]
                self._new.setdefault(stream, [[] for _ in range(self._num_rows)])[row].append(whole)

    def add_features(self, row: int, stream: str, value: Tensor) -> None:
        """A frame of features [D] of a row."""
        self._features.setdefault(stream, [[] for _ in range(self._num_rows)])[row].append(value)

    def take(self) -> Streams:
        """What has become complete since the last call."""
        out: Streams = {}
        for stream, rows in self._new.items():
            longest = max(len(r) for r in rows)
            empty = [0] * self._codebooks[stream]
            padded = [r + [empty] * (longest - len(r)) for r in rows]
            # Outside inference mode: what was generated may be trained on.
            with torch.inference_mode(False):
                values = torch.tensor(padded).transpose(1, 2)
                out[stream] = TokenSequence(values, torch.tensor([len(r) for r in rows]))
        for stream, found in self._features.items():
            dim = next(len(x) for r in found for x in r)
            with torch.inference_mode(False):
                rows_ = [torch.stack(r).cpu().clone() if r else torch.zeros(0, dim) for r in found]
                out[stream] = pad_batch([TokenSequence(r[None], torch.tensor([len(r)])) for r in rows_])
        self._new, self._features = {}, {}
        return out
