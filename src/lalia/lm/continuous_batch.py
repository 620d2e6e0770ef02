"""Rows that join and leave: one model takes the steps of many sessions at once (continuous batching).

A step reads every weight of the model once, for one row or for several. Each row has a state of its own, in which its
keys and values stay where they are, and its own sampler, seed and end; it steps when it is ready, and the others are
left as they are.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lalia.errors import ConfigError, LaliaError, LayoutError
from lalia.layouts import Cell, Laid, grid_of
from lalia.lm.drawing import Drawer
from lalia.lm.generation import Frames, known_steps, start_rows
from lalia.lm.head import Row
from lalia.lm.hf import HFState
from lalia.lm.sampling import Sampler
from lalia.nn.kv import KVState
from lalia.streaming import RowStates, State, select_rows
from lalia.streams import Streams, TokenSequence

if TYPE_CHECKING:
    from lalia.lm.model import SpeechLM

__all__ = ["ContinuousBatch", "Prompt", "Running"]


@dataclass
class Prompt(State):
    """Known streams of one row, read by a model: a value with which any number of rows can begin."""

    known: Streams
    state: KVState | HFState
    hidden: Tensor


_ROOM = 256
"""Steps for which a new state has room at first, behind what is known."""


@dataclass(eq=False)
class Running:
    """One row of a ``ContinuousBatch``.

    :param state: of this row alone, updated in place. It has seen every step but the last that was made.
    :param hidden: [1, (C,) D], from which the last step was drawn.
    :param laid: what stands in the step that is being made; while ``waits``, what is awaited is missing.
    :param made: steps that were made here.
    """

    row: Row
    drawer: Drawer
    frames: Frames
    state: KVState | HFState
    hidden: Tensor
    laid: list[Laid] = field(default_factory=list)
    made: int = 0
    waits: bool = False
    new: deque[tuple[int, Streams]] = field(default_factory=deque)
    """What became whole, and at which step, before anybody asked for it."""
    given: int = 0
    """The step of what was asked for last."""

    @property
    def over(self) -> bool:
        """Whether no more steps follow."""
        return not self.row.runs

    @property
    def ready(self) -> bool:
        """Whether the model can take the step that was made last."""
        return not self.over and not self.waits

    def hear(self, **more: TokenSequence) -> None:
        """More of streams that are awaited, of one row; the next step is made if it waited for no more than that.

        :raises LayoutError: a stream is not awaited, or not of its spec.
        """
        for stream, tokens in more.items():
            if stream not in self.row.awaited:
                raise LayoutError(
                    f"Stream {stream!r} is not awaited, but {', '.join(sorted(self.row.awaited)) or 'none'}. Name that."
                )
            self.row.cursor.extend(stream, tokens)
        if self.waits:
            self._make()

    def take(self) -> Streams | None:
        """The frames that became whole first, of those that nobody has asked for; None where there are none."""
        if not self.new:
            return None
        self.given, streams = self.new.popleft()
        return streams

    def _make(self) -> None:
        """The next step, of what was drawn and what is known, if nothing of it is missing."""
        cursor = self.row.cursor
        if self.row.awaited and not self.waits:
            # What is said does not hang on what is heard at the same time: it need not wait for that.
            self.frames.add(0, [x for x in self.laid if cursor.given(x.cell) is None], set())
            self._give()
        present = {cell for cell, *_ in self.laid}
        for slot in cursor.step or ():
            if isinstance(slot, Cell) and slot not in present and slot.stream in self.row.awaited:
                value = cursor.given(slot)
                if value is None:
                    self.waits = True
                    return
                self.laid.append(Laid(slot, value))
        self.waits = False
        known = {slot for slot in cursor.step or () if cursor.given(slot) is not None}
        self.laid = cursor.lay(self.laid)
        self.made += 1
        self._forget()
        if not self.row.awaited:
            self.frames.add(0, self.laid, known)
            self._give()

    def _give(self) -> None:
        whole = self.frames.take()
        if whole:
            self.new.append((self.made, whole))

    def _forget(self) -> None:
        """Keep nothing of awaited streams that has been laid, so that a session may go on for ever."""
        for stream in self.row.awaited:
            cells = [cell.t for cell, *_ in self.laid if cell.stream == stream]
            if len(cells) == self.drawer.codebooks(stream):
                # A delay only lets the other codebooks of later frames come first.
                self.row.cursor.drop(stream, min(cells))


class ContinuousBatch:
    """The rows of one model.

    There is no thread and no clock: whoever asks for the next tokens of his row has the others take a step too.

    :param ahead: the most steps that a row is taken beyond what it was asked for. More lets rows that are asked for in
        turns share more steps; what nobody asks for in the end is work for nothing.
    """

    def __init__(self, lm: "SpeechLM", *, ahead: int = 8) -> None:
        self.lm, self.ahead = lm, ahead
        self.rows: list[Running] = []
        self._index = count()

    # -- rows ------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def join(
        self,
        known: Streams | Prompt,
        *,
        sampler: Sampler | None = None,
        complete: Sequence[str] = (),
        limits: Mapping[str, int] | None = None,
        seed: int | None = None,
        state: State | None = None,
        awaited: Sequence[str] = (),
        context: int | None = None,
    ) -> Running:
        """A new row, whose first step is made, or waits for what is awaited.

        The parameters are those of ``generate``, for one row.

        :param known: or a prompt, which was read already.
        :param awaited: streams that come from outside as they happen (``Running.hear``), and are never drawn.
        :param context: most steps that a new state keeps, so that it does not grow for ever; see ``read``.
        :raises LayoutError: as ``generate``.
        """
        prompt = known if isinstance(known, Prompt) else None
        known = known.known if isinstance(known, Prompt) else known
        lm, sampler = self.lm, sampler or self.lm.config.sampler
        seeds = None if seed is None else [seed]
        drawer = next((r.drawer for r in self.rows if r.drawer.sampler == sampler), None) or Drawer(lm, sampler)
        (row,) = start_rows(lm, known, sampler, complete, limits or {}, seeds, 1, awaited)
        row.index = next(self._index)
        steps = known_steps(row)
        if prompt is None:
            prompt = self._read(known, steps, state, context)
        else:
            prompt = select_rows(prompt, torch.tensor([0]))
        frames = Frames(lm.specs, lm.ends, frozenset(lm.layout.markers), 1)
        running = Running(row, drawer, frames, prompt.state, prompt.hidden)
        self.rows.append(running)
        self._draw([running])
        return running

    @torch.inference_mode()
    def read(self, known: Streams, *, awaited: Sequence[str] = (), context: int | None = None) -> Prompt:
        """Read known streams of one row once, for rows that all begin with them.

        :param context: most steps that are kept: those before are no longer seen. The window of the model is never
            exceeded.
        :raises LayoutError: as ``generate``.
        :raises ConfigError: the state cannot be bounded.
        """
        (row,) = start_rows(self.lm, known, self.lm.config.sampler, (), {}, None, 1, awaited)
        return self._read(known, known_steps(row), None, context)

    def _read(self, known: Streams, steps: list[list[Laid]], state: State | None, context: int | None) -> Prompt:
        lm = self.lm
        grid = grid_of([steps], lm.specs).to(lm.start.device)
        before = state is None
        if state is None:
            state = lm.init_state(1, capacity=min(grid.num_steps + _ROOM, context or grid.num_steps + _ROOM))
            if context is not None:
                _bound(state, context)
        elif not grid.num_steps:
            raise LayoutError("A row goes on from a state with nothing known. Give it at least one step.")
        hidden = lm(grid, state, first=before)[..., -1, :]
        assert isinstance(state, KVState | HFState)
        return Prompt(known, state, hidden)

    def leave(self, row: Running) -> None:
        """The row takes no more steps; its state is its own again."""
        self.rows.remove(row)

    def step(self, rows: Sequence[Running]) -> None:
        """Have rows that are ready take the step that they have made, and make the next, or wait for it."""
        if rows:
            self._go_on(rows, self._see(rows))

    def step_with(self, row: Running, others: Sequence[Running]) -> None:
        """Have a row take its step, and others with it that are ready.

        One of them that cannot, as it has come to the end of what its model can place, does not keep the row from it.
        """
        rows = [row, *(other for other in others if other is not row)]
        try:
            hidden = self._see(rows)
        except LaliaError:
            if len(rows) == 1:
                raise
            # It is told so when it is asked for itself. Until then nothing has been seen.
            rows = [row]
            hidden = self._see(rows)
        self._go_on(rows, hidden)

    @torch.inference_mode()
    def _see(self, rows: Sequence[Running]) -> Tensor:
        """Have the model take the steps that the rows have made: its hidden states [n, (C,) D] after them."""
        grid = grid_of([[row.laid] for row in rows], self.lm.specs)
        states = [row.state for row in rows]
        state = states[0] if len(rows) == 1 else RowStates(states)
        # Lengths stay where they are read.
        return self.lm(replace(grid.to(self.lm.start.device), lengths=grid.lengths), state, first=False)[..., 0, :]

    @torch.inference_mode()
    def _go_on(self, rows: Sequence[Running], hidden: Tensor) -> None:
        for row, own in zip(rows, hidden.split(1), strict=True):
            row.hidden = own
        self._draw(rows)

    def _draw(self, rows: Sequence[Running]) -> None:
        """What the rows say next, from their hidden states; those with one sampler at once."""
        groups: dict[int, list[Running]] = {}
        for running in rows:
            running.laid = []
            if not running.over:
                groups.setdefault(id(running.drawer), []).append(running)
        for group in groups.values():
            hidden = torch.cat([running.hidden for running in group])
            drawn = group[0].drawer.fill([running.row for running in group], hidden)
            for running, laid in zip(group, drawn, strict=True):
                running.laid = laid
                running._make()

    # -- text, or whatever ends by itself ----------------------------------------------------------------------------

    def generate(
        self,
        known: Streams,
        *,
        sampler: Sampler | None = None,
        complete: Sequence[str] = (),
        limits: Mapping[str, int] | None = None,
        seeds: Sequence[int] | None = None,
        state: State | None = None,
    ) -> Iterator[Streams]:
        """Continue known streams of one row, as ``SpeechLM.generate`` does, beside others that do so.

        What is known is read when the iterator is first asked. Then each time that it has to wait for a step, all rows
        take one that are not too far ahead. When it ends, is closed or fails, ``state`` is as ``SpeechLM.generate``
        leaves it, and the row is gone.

        :raises LayoutError: as ``SpeechLM.generate``; or there is not one row.
        """
        if any(len(tokens) != 1 for tokens in known.values()) or (seeds is not None and len(seeds) != 1):
            raise LayoutError("A batch that rows join takes them one by one. Give one row, and one seed.")
        seed = None if seeds is None else seeds[0]
        row = self.join(known, sampler=sampler, complete=complete, limits=limits, seed=seed, state=state)
        try:
            while True:
                while (whole := row.take()) is not None:
                    try:
                        yield whole
                    except GeneratorExit:
                        # It may have been taken further than anybody wants to know.
                        row.state.rewind(row.made - row.given)
                        raise
                if row.over:
                    return
                self.step_with(row, [r for r in self.rows if self._may_go_ahead(r)])
        finally:
            self.leave(row)

    def _may_go_ahead(self, row: Running) -> bool:
        ahead = row.made - row.given
        return row.ready and not row.row.awaited and ahead < self.ahead and row.state.rewinds(ahead + 1)


def _bound(state: State, steps: int) -> None:
    """Have a new state keep so many steps at most.

    :raises ConfigError: it cannot.
    """
    if not isinstance(state, KVState):
        raise ConfigError(
            "The language model computes with transformers, whose cache grows with every step. Choose one that runs on "
            "lalia's own Transformer."
        )
    state.window = min(steps, state.window or steps)
