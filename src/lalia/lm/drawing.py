"""Drawing: the values of the cells that the cursors of a batch ask for next.

Shapes: B batch, D dim, V ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lalia.errors import ConfigError, LayoutError
from lalia.layouts import Cell, Choice, Laid
from lalia.lm.head import Ask, Row
from lalia.lm.heads import Linear
from lalia.lm.sampling import Sampler, Sampling, sample, uniform
from lalia.streams import Discrete

if TYPE_CHECKING:
    from lalia.lm.model import SpeechLM

__all__ = ["Drawer"]

_Key = tuple[tuple[str, ...], int]
"""What rows are drawn together for: the streams of a choice (or one), and the codebook."""


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

    def codebooks(self, stream: str) -> int:
        """K of a stream; 1 for features."""
        kind = self.model.specs[stream].kind
        return kind.num_codebooks if isinstance(kind, Discrete) else 1

    def fill(self, rows: Sequence[Row], hidden: Tensor) -> list[list[Laid]]:
        """Every slot of the next step of each row with its value: known ones as they are, the others drawn, but those
        that are awaited.

        Slots are taken in order across rows; those that ask for the same codebook are drawn together.

        :param hidden: [B, D], of the same rows; those that are over get nothing.
        """
        laid: list[list[Laid]] = [[] for _ in rows]
        scratch: dict[str, dict[Any, Any]] = {}
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
                elif slot.stream not in row.awaited:
                    groups.setdefault(((slot.stream,), slot.codebook), []).append((i, slot))
            for key, members in groups.items():
                index = [i for i, _ in members]
                some = hidden if len(index) == len(rows) else hidden[torch.tensor(index, device=hidden.device)]
                chosen = [rows[i] for i in index]
                if isinstance(members[0][1], Choice):
                    slots: list[Choice] = [s for _, s in members if isinstance(s, Choice)]
                    items = self._choose(key, slots, chosen, some)
                else:
                    cells: list[Cell] = [s for _, s in members if isinstance(s, Cell)]
                    beside = [laid[i] for i in index]
                    items = self._ask(key, cells, chosen, some, beside, scratch.setdefault(key[0][0], {}))
                for i, item in zip(index, items, strict=True):
                    if item.cell.codebook == 0 and isinstance(item.value, int):
                        rows[i].history.setdefault(item.cell.stream, []).append(item.value)
                    laid[i].append(item)
        return laid

    def _ask(
        self,
        key: _Key,
        cells: list[Cell],
        rows: list[Row],
        hidden: Tensor,
        laid: list[list[Laid]],
        scratch: dict[Any, Any],
    ) -> list[Laid]:
        """The cells of one stream and codebook, by its head."""
        (stream,), codebook = key
        head = self.model.head(stream)
        of_stream = self.model.hidden_of(stream, hidden)
        ask = Ask(
            codebook, of_stream, rows, laid, partial(self._pick, key, rows), partial(_noise, rows, hidden), scratch
        )
        items = []
        for cell, drawn in zip(cells, head.draw(ask), strict=True):
            value, last = drawn if isinstance(drawn, tuple) else (drawn, False)
            items.append(Laid(cell, value, last))
        return items

    def _choose(self, key: _Key, slots: list[Choice], rows: list[Row], hidden: Tensor) -> list[Laid]:
        """Which stream goes on, and with what: drawn together from one vocabulary."""
        parts = self._parts.get(key)
        if parts is None:
            parts = self._parts[key] = self._part(key)
        head = self.model.linear(parts[0].stream)
        logits = torch.cat([head.logits(hidden, p.rows) for p in parts], dim=1)
        items = []
        for slot, drawn in zip(slots, self._pick(key, rows, logits), strict=True):
            part = next(p for p in reversed(parts) if drawn >= p.first)
            items.append(Laid(next(c for c in slot.cells if c.stream == part.stream), drawn - part.first))
        return items

    def _pick(self, key: _Key, rows: Sequence[Row], logits: Tensor) -> list[int]:
        """One id for each row from its logits [n, V]; of a choice, an index into its parts one after another."""
        if key not in self._settings:
            self._settings[key] = self.sampler.of(*key[0])
            parts = self._parts.setdefault(key, [_Part(key[0][0], 0, logits.shape[1], range(logits.shape[1]))])
            self._banned[key] = self._ban(parts).to(logits.device) if self.sampler.banned else None
        settings, banned, parts = self._settings[key], self._banned[key], self._parts[key]
        logits = logits.float()
        if banned is not None:
            logits = logits.masked_fill(banned, -torch.inf)
        numbers = None
        if settings.temperature != 0:
            drawn = [(uniform(r.seed, 2 * r.draws), uniform(r.seed, 2 * r.draws + 1)) for r in rows]
            numbers = torch.tensor(drawn, dtype=torch.float64, device=logits.device)
        recent = _recent(rows, parts, settings) if settings.repetition_window and key[1] == 0 else None
        ids: list[int] = sample(
            logits, settings, numbers, None if recent is None else recent.to(logits.device)
        ).tolist()
        for row in rows:
            row.draws += 1
        return ids

    def _part(self, key: _Key) -> list[_Part]:
        streams, codebook = key
        heads = [h for s in streams if s in self.model.heads and isinstance(h := self.model.head(s), Linear)]
        if len(heads) < len(streams) or len({id(h.table) for h in heads}) > 1:
            raise LayoutError(
                f"The model has to choose between streams {', '.join(streams)}, which do not share one vocabulary. "
                "Give their Lookup the same table, and each a head."
            )
        parts: list[_Part] = []
        for stream, head in sorted(zip(streams, heads, strict=True), key=lambda x: x[1].rows(codebook).start):
            rows = head.rows(codebook)[: head.num_ids[codebook]]
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


def _noise(rows: Sequence[Row], like: Tensor, dim: int) -> Tensor:
    """Standard normal numbers [n, D], each row's by its own seed."""
    out = []
    for row in rows:
        seed = int(uniform(row.seed, 2 * row.draws) * 2**53)
        out.append(torch.randn(dim, generator=torch.Generator().manual_seed(seed)))
        row.draws += 1
    return torch.stack(out).to(like)
