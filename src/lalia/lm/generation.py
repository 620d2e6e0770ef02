"""Generation: batched, row by row on the plan of the layout, each row ending by itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lalia.errors import LayoutError
from lalia.layouts import Cell, Choice, Cursor, Laid, Slot, grid_of
from lalia.lm.sampling import Sampler, sample, uniform
from lalia.streaming import State, select_rows
from lalia.streams import Discrete, Streams, TokenSequence, pad_batch

if TYPE_CHECKING:
    from lalia.lm.model import SpeechLM

__all__ = ["collect", "generate"]


@dataclass
class _Row:
    """One row of the batch while it runs."""

    index: int
    cursor: Cursor
    seed: int
    draws: int = 0
    history: dict[str, list[int]] = field(default_factory=dict)
    open: dict[tuple[str, int], dict[int, int | Tensor]] = field(default_factory=dict)


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
) -> Iterator[Streams]:
    """Continue the known streams, and yield what is new after every LM step.

    :param known: what is there already, of any stream, rows of any length; None for nothing.
    :param complete: known streams of which nothing more comes. Streams without a head always are.
    :param limits: most tokens of a stream, the known ones counted.
    :param max_steps: most LM steps after the known ones.
    :param seeds: one per row; ``sampler.seed + row`` when not given.
    :param batch_size: rows when nothing is known.
    :yields: for each stream that gained whole frames, a TokenSequence of B rows (``lengths`` 0 where a row
        gained none).
    :raises LayoutError: ``known`` holds a stream that is not in the layout.
    """
    known = dict(known or {})
    num_rows = len(next(iter(known.values()))) if known else batch_size
    specs, layout = model.specs, model.layout
    if known and layout.markers and all(s in known for s in specs if s not in layout.markers):
        known = dict(layout.mark(known, specs))
    done = {*complete, *(s for s in specs if s not in model.heads)}
    rows = []
    for b in range(num_rows):
        cursor = Cursor(layout, specs, {n: k.row(b) for n, k in known.items()}, complete=tuple(done), limits=limits)
        rows.append(_Row(b, cursor, seeds[b] if seeds is not None else sampler.seed + b))
    prefix: list[list[list[Laid]]] = []
    for row in rows:
        laid = []
        while row.cursor.ready():
            laid.append(row.cursor.lay(_given(row)))
        for stream, tokens in known.items():
            if tokens.discrete and stream in specs:
                row.history[stream] = tokens.row(row.index).values[0, 0].tolist()
        prefix.append(laid)
    device = model.start.device
    grid = grid_of(prefix, specs).to(device)
    state: State = model.init_state(num_rows, capacity=grid.num_steps + (max_steps or 256) + 1)
    hidden = model(grid, state)[torch.arange(num_rows, device=device), grid.lengths]
    steps = 0
    while True:
        active = [i for i, r in enumerate(rows) if r.cursor.step is not None]
        if not active or (max_steps is not None and steps >= max_steps):
            return
        # Rows that ended ride along until half are gone: moving the state costs more than a few idle rows.
        if 2 * len(active) <= len(rows):
            keep = torch.tensor(active, device=device)
            rows, hidden, state = [rows[i] for i in active], hidden[keep], select_rows(state, keep)
            active = list(range(len(rows)))
        laid_rows: list[list[Laid]] = [[] for _ in rows]
        _fill(model, rows, active, hidden, sampler, laid_rows)
        new: list[dict[str, list[Tensor]]] = [{} for _ in range(num_rows)]
        for i in active:
            row = rows[i]
            given = {s for s in row.cursor.step or () if row.cursor.given(s) is not None}
            laid_rows[i] = row.cursor.lay(laid_rows[i])
            new[row.index] = _frames(model, row, laid_rows[i], given)
        steps += 1
        emitted = _emit(model, new)
        if emitted:
            yield emitted
        if all(r.cursor.step is None for r in rows):
            return
        step = grid_of([[laid] for laid in laid_rows], specs).to(device)
        hidden = model(step, state, first=False)[:, 0]


def collect(parts: Iterator[Streams]) -> Streams:
    """All that ``generate`` yields, joined along time."""
    pieces: dict[str, list[list[Tensor]]] = {}
    for part in parts:
        for name, tokens in part.items():
            rows = pieces.setdefault(name, [[] for _ in range(len(tokens))])
            for b in range(len(tokens)):
                if int(tokens.lengths[b]):
                    rows[b].append(tokens.row(b).values)
    out: Streams = {}
    for name, rows in pieces.items():
        example = next(v for r in rows for v in r)
        axis = 1 if example.is_floating_point() else 2
        empty = example.narrow(axis, 0, 0)
        out[name] = pad_batch(
            [
                TokenSequence(v, torch.tensor([v.shape[axis]]))
                for v in (torch.cat(r, dim=axis) if r else empty for r in rows)
            ]
        )
    return out


def _given(row: _Row) -> list[Laid]:
    laid = []
    for slot in row.cursor.step or ():
        value = row.cursor.given(slot)
        if value is not None:
            assert isinstance(slot, Cell)
            laid.append(Laid(slot, value))
    return laid


def _fill(
    model: "SpeechLM", rows: list[_Row], active: list[int], hidden: Tensor, sampler: Sampler, laid: list[list[Laid]]
) -> None:
    """Give every slot of the next step its value: known ones as they are, the others sampled.

    Slots are taken in order across rows; those that ask for the same codebook are sampled together.
    """
    width = max(len(rows[i].cursor.step or ()) for i in active)
    for j in range(width):
        groups: dict[tuple[str, ...], list[int]] = {}
        for i in active:
            step = rows[i].cursor.step or ()
            slot: Slot = step[j] if j < len(step) else None
            if slot is None:
                continue
            value = rows[i].cursor.given(slot)
            if value is not None:
                assert isinstance(slot, Cell)
                laid[i].append(Laid(slot, value))
            elif isinstance(slot, Cell):
                groups.setdefault((slot.stream, str(slot.codebook)), []).append(i)
            else:
                groups.setdefault(("", *(c.stream for c in slot.cells)), []).append(i)
        for key, members in groups.items():
            cells: list[Cell | Choice] = [rows[i].cursor.step[j] for i in members]  # type: ignore[index,misc]
            h = hidden if len(members) == len(rows) else hidden[torch.tensor(members, device=hidden.device)]
            chosen = (
                _sample_choice(model, [rows[i] for i in members], cells, h, sampler)  # type: ignore[arg-type]
                if key[0] == ""
                else _sample_cell(model, [rows[i] for i in members], cells, h, sampler)  # type: ignore[arg-type]
            )
            for i, item in zip(members, chosen, strict=True):
                laid[i].append(item)


def _sample_cell(
    model: "SpeechLM", rows: list[_Row], cells: list[Cell], hidden: Tensor, sampler: Sampler
) -> list[Laid]:
    stream, codebook = cells[0].stream, cells[0].codebook
    head = model.heads[stream]
    logits = head.logits(hidden, codebook).float()  # type: ignore[operator]
    own, scope = head.vocabulary.rows(head.rows_of, codebook), head.scope(codebook)  # type: ignore[union-attr,operator]
    if len(own) != len(scope):
        logits = logits[:, own.start - scope.start : own.stop - scope.start]
    kind = model.specs[stream].kind
    assert isinstance(kind, Discrete)
    if codebook > 0 or stream not in model.layout.ends(model.specs):
        # Only codebook 0 of a stream that ends has an end to predict.
        if kind.end is None:
            logits = logits[:, : kind.codebook_size]
    ids = _draw(rows, stream, logits, sampler, track=codebook == 0)
    return [Laid(c, i) for c, i in zip(cells, ids, strict=True)]


def _sample_choice(
    model: "SpeechLM", rows: list[_Row], choices: list[Choice], hidden: Tensor, sampler: Sampler
) -> list[Laid]:
    streams = [c.stream for c in choices[0].cells]
    heads = [model.heads[s] for s in streams if s in model.heads]
    if len(heads) != len(streams) or len({id(h.vocabulary) for h in heads}) > 1:
        raise LayoutError(
            f"The model has to choose between streams {', '.join(streams)}, which do not share one vocabulary. "
            "Give their Lookup the same table."
        )
    # One softmax over the rows of all candidates, in the order of the table.
    spans = sorted((h.vocabulary.rows(h.rows_of, 0), s) for h, s in zip(heads, streams, strict=True))  # type: ignore[union-attr,type-var]
    logits = heads[0].logits(hidden, 0).float()  # type: ignore[operator]
    ends = model.layout.ends(model.specs)
    parts = []
    for rows_, stream in ((r, s) for r, s in spans):
        part = logits[:, rows_.start : rows_.stop]
        kind = model.specs[stream].kind
        if stream not in ends and isinstance(kind, Discrete) and kind.end is None:
            part = part[:, : kind.codebook_size]
        parts.append((stream, part))
    picked = _draw(rows, "", torch.cat([p for _, p in parts], dim=1), sampler, track=False)
    out = []
    for choice, index in zip(choices, picked, strict=True):
        for stream, part in parts:
            if index < part.shape[1]:
                cell = next(c for c in choice.cells if c.stream == stream)
                out.append(Laid(cell, index))
                break
            index -= part.shape[1]
    return out


def _draw(rows: list[_Row], stream: str, logits: Tensor, sampler: Sampler, *, track: bool) -> list[int]:
    settings = sampler.of(stream)
    banned = sampler.banned.get(stream)
    if banned:
        logits = logits.clone()
        for start, stop in banned:
            logits[:, start:stop] = -torch.inf
    recent = None
    if settings.temperature == 0:
        draw = torch.empty(0)
    else:
        seeds = torch.tensor([r.seed for r in rows])
        counts = torch.tensor([r.draws for r in rows])
        draw = torch.stack([uniform(seeds, 2 * counts), uniform(seeds, 2 * counts + 1)], dim=1).to(logits.device)
    if settings.repetition_window and track:
        w = settings.repetition_window
        tails = [r.history.get(stream, [])[-w:] for r in rows]
        recent = torch.tensor([[-1] * (w - len(t)) + t for t in tails], device=logits.device)
    ids: list[int] = sample(logits, settings, draw, recent).tolist()
    for row, i in zip(rows, ids, strict=True):
        row.draws += 1
        if track:
            row.history.setdefault(stream, []).append(i)
    return ids


def _frames(model: "SpeechLM", row: _Row, laid: list[Laid], given: set[Slot]) -> dict[str, list[Tensor]]:
    """Frames of each stream that are complete now: with delays, the codebooks of a frame come one by one."""
    out: dict[str, list[Tensor]] = {}
    for item in laid:
        stream, _, t = item.cell
        kind = model.specs[stream].kind
        if item.cell in given or stream in model.layout.markers:
            continue
        if not isinstance(kind, Discrete):
            assert isinstance(item.value, Tensor)
            out.setdefault(stream, []).append(item.value)
            continue
        if item.value == kind.end_id and item.cell.codebook == 0 and stream in model.layout.ends(model.specs):
            continue
        frame = row.open.setdefault((stream, t), {})
        frame[item.cell.codebook] = item.value
        if len(frame) == kind.num_codebooks:
            del row.open[stream, t]
            out.setdefault(stream, []).append(torch.tensor([frame[k] for k in range(kind.num_codebooks)]))
    return out


def _emit(model: "SpeechLM", new: list[dict[str, list[Tensor]]]) -> Streams:
    out: Streams = {}
    for stream in dict.fromkeys(s for row in new for s in row):
        kind = model.specs[stream].kind
        width = kind.num_codebooks if isinstance(kind, Discrete) else kind.dim
        rows = []
        for row in new:
            frames = row.get(stream, [])
            if isinstance(kind, Discrete):
                values = torch.stack(frames, dim=1)[None] if frames else torch.zeros((1, width, 0), dtype=torch.long)
            else:
                values = torch.stack(frames)[None] if frames else torch.zeros((1, 0, width))
            rows.append(TokenSequence(values, torch.tensor([len(frames)])))
        out[stream] = pad_batch(rows)
    return out
