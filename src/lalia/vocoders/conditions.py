"""Further streams beside the units that a vocoder speaks: how they enter, and how they keep time with the units.

Three kinds of streams go with units: one that has a clock belongs to a frame of the units by time; one without repeats
is first repeated for its durations; one without a clock has a step for each unit, and lasts as long as that does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lalia.errors import ConfigError, LayoutError
from lalia.streaming import State
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers.held import Held
from lalia.tokenizers.runs import frames_of
from lalia.vocoders.base import check_codes, check_features, find_spec, find_stream

__all__ = ["Conditions", "JoinState", "Joiner", "aligned", "check_durations", "condition_of"]

_EPSILON = 1e-6
"""Of a frame: rates such as 50 / 3 Hz are not exact."""


def aligned(start: int, count: int, units_rate: float, rate: float) -> Tensor:
    """The frames [count] of a stream that sound in the middle of the units' frames from ``start`` on."""
    middle = torch.arange(start, start + count, dtype=torch.float64) + 0.5
    return torch.floor(middle * (rate / units_rate) + _EPSILON).long()


def condition_of(
    name: str, tokens: TokenSequence, spec: StreamSpec, units: TokenSequence, rate: float
) -> TokenSequence:
    """A stream of a recording with a step for each frame of its units: what a vocoder is trained on.

    :param tokens: of batch size 1.
    :param units: the units of that recording, with durations where they have no repeats, at ``rate`` Hz.
    :raises LayoutError: it has nothing, no durations, or not a step for each unit.
    """
    total = units.num_tokens if units.durations is None else int(units.durations.sum())
    rows = _frames(name, tokens.row(0), spec)
    if spec.frame_rate is None:
        if len(rows) != units.num_tokens:
            raise LayoutError(f"Stream {name!r} has {len(rows)} steps for {units.num_tokens} units. Give one for each.")
        at = torch.arange(total) if units.durations is None else torch.repeat_interleave(units.durations[0])
    else:
        if total and not len(rows):
            raise LayoutError(f"Stream {name!r} is empty beside {units.num_tokens} units. Tokenize the corpus again.")
        at = aligned(0, total, rate, spec.frame_rate).clamp(max=len(rows) - 1)
    values = rows[at]
    return TokenSequence(values.T[None] if tokens.discrete else values[None], torch.tensor([total]))


def _frames(name: str, row: TokenSequence, spec: StreamSpec) -> Tensor:
    """Steps [t, K or D] of one row; repeated for their durations where that is what the stream is."""
    if spec.deduplicated:
        if row.durations is None:
            raise LayoutError(f"Stream {name!r} has no repeats and came without durations. Give them.")
        row = row.expand()
    return row.values[0].T if row.discrete else row.values[0]


class Conditions(nn.Module):
    """The sum of what streams add to the embedded units: features projected, codes embedded.

    :param names: of the streams, in order.
    :param dim: width of the units' embeddings.
    :raises ConfigError: there is no such stream.
    """

    def __init__(self, names: Sequence[str], specs: Mapping[str, StreamSpec], dim: int, vocoder: str) -> None:
        super().__init__()
        self.names = tuple(names)
        self.specs = {name: find_spec(specs, name, vocoder) for name in names}
        self.inputs = nn.ModuleList()
        for spec in self.specs.values():
            if isinstance(spec.kind, Discrete):
                tables = (nn.Embedding(spec.kind.codebook_size, dim) for _ in range(spec.kind.num_codebooks))
                self.inputs.append(nn.ModuleList(tables))
            else:
                self.inputs.append(nn.Linear(spec.kind.dim, dim))

    def forward(self, values: Mapping[str, Tensor]) -> Tensor | float:
        """Codes [B, K, T] or features [B, T, D] of every stream, a step for each frame: [B, T, dim], or 0 of none."""
        total: Tensor | float = 0.0
        for name, entry in zip(self.names, self.inputs, strict=True):
            x = values[name]
            if isinstance(entry, nn.ModuleList):
                total = total + torch.stack([table(x[:, k]) for k, table in enumerate(entry)]).sum(0)
            else:
                total = total + entry(x)
        return total

    @property
    def widths(self) -> list[int]:
        """Values per step of each stream."""
        return [k.num_codebooks if isinstance(k := s.kind, Discrete) else k.dim for s in self.specs.values()]

    def check(self, streams: Streams) -> None:
        """Refuse streams that are missing, or hold what the specs do not say.

        :raises LayoutError: names the stream.
        """
        for name, spec in self.specs.items():
            tokens = find_stream(streams, name)
            if isinstance(spec.kind, Discrete):
                check_codes(tokens, name, spec.kind.num_codebooks, spec.kind.codebook_size)
            else:
                check_features(tokens, name, spec.kind.dim)

    def split(self, x: Tensor) -> dict[str, Tensor]:
        """The streams of [B, T, sum(widths)], which is how ``Joiner`` gives them."""
        parts = x.split(self.widths, dim=-1)
        return {
            name: part.round().long().transpose(1, 2) if isinstance(spec.kind, Discrete) else part
            for part, (name, spec) in zip(parts, self.specs.items(), strict=True)
        }


@dataclass
class JoinState(State):
    """What waits for its counterpart.

    ``steps``: the units with their durations, and each stream that has a step per unit; ``frames``: of the units, with
    these; ``clocked``: the frames of each stream with a clock, ``first`` [B] the number of the first of them; ``given``
    [B]: frames of the units that were joined so far.
    """

    steps: list[Held]
    frames: Held
    clocked: list[Held]
    first: list[Tensor]
    given: Tensor


class Joiner:
    """Units and the streams beside them as one sequence of frames, whatever pieces they come in.

    :param num_codebooks: of the units.
    :param durations: the stream of their durations; None where they have their own.
    """

    def __init__(self, units: StreamSpec, num_codebooks: int, conditions: Conditions, durations: str | None) -> None:
        assert units.frame_rate is not None
        self.rate, self.num_codebooks, self.conditions, self.durations = (
            units.frame_rate,
            num_codebooks,
            conditions,
            durations,
        )
        widths = dict(zip(conditions.names, conditions.widths, strict=True))
        self._stepped = [n for n, s in conditions.specs.items() if s.frame_rate is None]
        self._clocked = [n for n, s in conditions.specs.items() if s.frame_rate is not None]
        self._step_widths = [num_codebooks + 1, *([1] if durations else []), *(widths[n] for n in self._stepped)]
        self._clocked_widths = [widths[n] for n in self._clocked]
        self._frame_width = num_codebooks + sum(widths[n] for n in self._stepped)
        # The order in which the parts are joined, and that in which the vocoder splits them.
        places, start = {}, num_codebooks
        for name in (*self._stepped, *self._clocked):
            places[name] = range(start, start + widths[name])
            start += widths[name]
        self._order = [*range(num_codebooks), *(i for n in conditions.names for i in places[n])]

    @property
    def width(self) -> int:
        """Values per frame."""
        return len(self._order)

    def init_state(self, batch_size: int) -> JoinState:
        """Nothing yet."""
        none = torch.zeros(batch_size, dtype=torch.long)
        return JoinState(
            [Held.empty(batch_size, w) for w in self._step_widths],
            Held.empty(batch_size, self._frame_width),
            [Held.empty(batch_size, w) for w in self._clocked_widths],
            [none.clone() for _ in self._clocked],
            none.clone(),
        )

    def join(
        self, units: TokenSequence, streams: Streams, state: JoinState | None = None, *, final: bool = False
    ) -> TokenSequence:
        """
        :param units: codes [B, K, T], with the frames that each lasts, or one each.
        :param streams: the others.
        :param state: updated in place; None when the streams are whole.
        :param final: they end here. A stream with a clock that is shorter than the units goes on as it ended.
        :returns: the frames that no later step can change [B, T, width]; codes are as numbers.
        :raises LayoutError: a stream has fewer steps than there are units, nothing, or no durations.
        """
        if state is None:
            state, final = self.init_state(len(units)), True
        rows = []
        for b in range(len(units)):
            frames = torch.cat(
                [state.frames.rows[b].to(units.values.device), self._steps(units, streams, state, b, final)]
            )
            made = self._clock(frames, streams, state, b, final)
            rows.append(TokenSequence(made[None, :, self._order], torch.tensor([len(made)], device=made.device)))
        return pad_batch(rows)

    def _steps(self, units: TokenSequence, streams: Streams, state: JoinState, b: int, final: bool) -> Tensor:
        """New frames [t, frame width] of row ``b``: what has a step per unit, for as long as each lasts."""
        row = units.row(b)
        lasting = torch.ones_like(row.values[:, 0]) if row.durations is None else row.durations
        parts = [torch.cat([row.values[0].T, lasting.T], dim=-1).float()]
        if self.durations:
            parts.append(frames_of(find_stream(streams, self.durations).row(b)).T.float())
        parts += [_frames(n, streams[n].row(b), self.conditions.specs[n]).float() for n in self._stepped]
        held = [h.join(b, new) for h, new in zip(state.steps, parts, strict=True)]
        ready = min(map(len, held))
        if final and ready < len(held[0]):
            names = [*([self.durations] if self.durations else []), *self._stepped]
            short = names[min(range(len(names)), key=lambda i: len(held[i + 1]))]
            raise LayoutError(f"Stream {short!r} has {ready} steps for {len(held[0])} units. Give one for each unit.")
        for h, rest in zip(state.steps, held, strict=True):
            h.rows[b] = rest[len(rest) if final else ready :].clone()
        held = [h[:ready] for h in held]
        frames = (held[1] if self.durations else held[0][:, -1:])[:, 0].long()
        whole = torch.cat([held[0][:, :-1], *held[2 if self.durations else 1 :]], dim=-1)
        return torch.repeat_interleave(whole, frames, dim=0)

    def _clock(self, frames: Tensor, streams: Streams, state: JoinState, b: int, final: bool) -> Tensor:
        """Of the units' frames of row ``b`` those that are certain, with the streams that have a clock."""
        given, ready = int(state.given[b]), len(frames)
        held, at = [], []
        for name, waiting, first in zip(self._clocked, state.clocked, state.first, strict=True):
            spec = self.conditions.specs[name]
            assert spec.frame_rate is not None
            x = waiting.join(b, _frames(name, streams[name].row(b), spec).float())
            index = aligned(given, len(frames), self.rate, spec.frame_rate).to(x.device) - int(first[b])
            if final and len(frames) and not len(x):
                raise LayoutError(f"Stream {name!r} is empty beside {len(frames)} frames of units. Give it.")
            ready = ready if final else min(ready, int((index < len(x)).sum()))
            held.append(x)
            at.append(index)
        made = [x[index[:ready].clamp(max=len(x) - 1)] for x, index in zip(held, at, strict=True)]
        for name, waiting, first, x in zip(self._clocked, state.clocked, state.first, held, strict=True):
            rate = self.conditions.specs[name].frame_rate or 0.0
            next_ = int(aligned(given + ready, 1, self.rate, rate)) - int(first[b])
            # The last one stays, for units that go on when it has ended.
            done = len(x) if final else max(min(next_, len(x) - 1), 0)
            waiting.rows[b] = x[done:].clone()
            first[b] = 0 if final else first[b] + done
        state.frames.rows[b] = frames[len(frames) if final else ready :].clone()
        state.given[b] = 0 if final else given + ready
        return torch.cat([frames[:ready], *made], dim=-1)


def check_durations(name: str, specs: Mapping[str, StreamSpec], vocoder: str) -> None:
    """Refuse a stream that cannot be the durations of units.

    :raises ConfigError: it does not exist, has a clock, or more than one value per step.
    """
    spec = find_spec(specs, name, vocoder)
    one = spec.kind.num_codebooks if isinstance(spec.kind, Discrete) else spec.kind.dim
    if spec.frame_rate is not None or one != 1:
        raise ConfigError(
            f"{vocoder} reads durations of {name!r}, which has {one} values per step at {spec.frame_rate} Hz. "
            "Name a stream with one duration per unit, and so without a frame rate."
        )
