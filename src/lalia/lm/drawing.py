"""Drawing: the values of the cells that the cursors of a batch ask for next.

Shapes: B batch, D dim, V ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lalia.errors import ConfigError, LayoutError
from lalia.layouts import Cell, Choice, Cursor, Laid
from lalia.lm.sampling import Sampler, Sampling, sample, uniform
from lalia.streams import Discrete

if TYPE_CHECKING:
    from lalia.lm.model import SpeechLM

__all__ = ["Drawer", "Row"]

_Key = tuple[tuple[str, ...], int]
"""What rows are drawn together for: the streams of a choice (or one), and the codebook."""


@dataclass
class Row:
    """One row of the batch while it runs.

    :param index: its place in what ``generate`` yields.
    :param history: codes of codebook 0 of each stream so far.
    """

    index: int
    cursor: Cursor
    seed: int
    draws: int = 0
    history: dict[str, list[int]] = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        return self.cursor.step is not None


@dataclass(frozen=True)
class _Part:
    """One stream of a choice: ids ``first`` to ``first + size`` of what is drawn are its codes."""

    stream: str
    first: int
    size: int
    rows: range


class Drawer:
    """Draws for one model with one sampler; what depends on neither row nor step is worked out once.

    :raises ConfigError: the sampler names a stream that the model does not have, or bans all of one.
    """

    def __init__(self, model: "SpeechLM", sampler: Sampler) -> None:
        self.model, self.sampler = model, sampler
        self._parts: dict[_Key, list[_Part]] = {}
        self._settings: dict[_Key, Sampling] = {}
        self._banned: dict[_Key, Tensor | None] = {}
        for name in (*sampler.streams, *sampler.banned):
            if name not in model.specs:
                raise ConfigError(
                    f"The sampler names stream {name!r}, but the model has {', '.join(model.specs)}. Fix the name."
                )

    def fill(self, rows: Sequence[Row], hidden: Tensor) -> list[list[Laid]]:
        """Every slot of the next step of each row with its value: known ones as they are, the others drawn.

        Slots are taken in order across rows; those that ask for the same codebook are drawn together.

        :param hidden: [B, D], of the same rows; those that are over get nothing.
        """
        laid: list[list[Laid]] = [[] for _ in rows]
        width = max(len(r.cursor.step or ()) for r in rows)
        for j in range(width):
            groups: dict[_Key, list[tuple[int, Cell | Choice]]] = {}
            for i, row in enumerate(rows):
                step = row.cursor.step
                slot = step[j] if step is not None and j < len(step) else None
                if slot is None:
                    continue
                if isinstance(slot, Choice):
                    groups.setdefault((tuple(c.stream for c in slot.cells), 0), []).append((i, slot))
                elif (value := row.cursor.given(slot)) is not None:
                    laid[i].append(Laid(slot, value))
                else:
                    groups.setdefault(((slot.stream,), slot.codebook), []).append((i, slot))
            for key, members in groups.items():
                index = [i for i, _ in members]
                of_members = hidden if len(index) == len(rows) else hidden[torch.tensor(index, device=hidden.device)]
                ids = self._draw(key, [rows[i] for i in index], of_members)
                for (i, slot), drawn in zip(members, ids, strict=True):
                    item = self._cell(key, slot, drawn)
                    if item.cell.codebook == 0:
                        rows[i].history.setdefault(item.cell.stream, []).append(item.value)  # type: ignore[arg-type]
                    laid[i].append(item)
        return laid

    def _cell(self, key: _Key, slot: Cell | Choice, drawn: int) -> Laid:
        if isinstance(slot, Cell):
            return Laid(slot, drawn)
        part = next(p for p in reversed(self._parts[key]) if drawn >= p.first)
        return Laid(next(c for c in slot.cells if c.stream == part.stream), drawn - part.first)

    def _draw(self, key: _Key, rows: list[Row], hidden: Tensor) -> list[int]:
        """One id for each row; of a choice, an index into its parts one after another."""
        parts = self._parts.get(key)
        if parts is None:
            parts = self._parts[key] = self._part(key)
            self._settings[key] = self.sampler.of(*key[0])
            self._banned[key] = self._ban(parts).to(hidden.device) if self.sampler.banned else None
        settings = self._settings[key]
        head = self.model.head(key[0][0])
        logits = [head.logits(hidden, p.rows) for p in parts]
        joined = (logits[0] if len(logits) == 1 else torch.cat(logits, dim=1)).float()
        banned = self._banned[key]
        if banned is not None:
            joined.masked_fill_(banned, -torch.inf)
        numbers = None
        if settings.temperature != 0:
            drawn = [(uniform(r.seed, 2 * r.draws), uniform(r.seed, 2 * r.draws + 1)) for r in rows]
            numbers = torch.tensor(drawn, dtype=torch.float64, device=hidden.device)
        recent = _recent(rows, parts, settings) if settings.repetition_window and key[1] == 0 else None
        ids: list[int] = sample(
            joined, settings, numbers, None if recent is None else recent.to(hidden.device)
        ).tolist()
        for row in rows:
            row.draws += 1
        return ids

    def _part(self, key: _Key) -> list[_Part]:
        streams, codebook = key
        heads = [self.model.head(s) for s in streams if s in self.model.heads]
        if len(heads) < len(streams) or len({id(h.weight) for h in heads}) > 1:
            raise LayoutError(
                f"The model has to choose between streams {', '.join(streams)}, which do not share one vocabulary. "
                "Give their Lookup the same table, and each a head."
            )
        parts: list[_Part] = []
        for stream, head in sorted(zip(streams, heads, strict=True), key=lambda x: x[1].rows(codebook).start):
            kind, rows = self.model.specs[stream].kind, head.rows(codebook)
            assert isinstance(kind, Discrete)
            if kind.end is None and (codebook > 0 or stream not in self.model.ends):
                # Only codebook 0 of a stream that ends has an end to predict.
                rows = rows[: kind.codebook_size]
            parts.append(_Part(stream, sum(p.size for p in parts), len(rows), rows))
        return parts

    def _ban(self, parts: list[_Part]) -> Tensor:
        """Which ids of the parts are banned [V]."""
        banned = torch.zeros(sum(p.size for p in parts), dtype=torch.bool)
        for part in parts:
            for start, stop in self.sampler.banned.get(part.stream, ()):
                banned[part.first + min(start, part.size) : part.first + min(stop, part.size)] = True
        if banned.all():
            raise ConfigError(
                f"The sampler bans every code of {', '.join(p.stream for p in parts)}. Leave at least one."
            )
        return banned


def _recent(rows: Sequence[Row], parts: Sequence[_Part], settings: Sampling) -> Tensor:
    """The last codes of each row [n, W], as ids of what is drawn; -1 where there are fewer."""
    width = settings.repetition_window
    out = torch.full((len(rows), width * len(parts)), -1)
    for i, row in enumerate(rows):
        for j, part in enumerate(parts):
            codes = row.history.get(part.stream, ())[-width:]
            if codes:
                out[i, j * width : j * width + len(codes)] = torch.tensor(codes) + part.first
    return out
