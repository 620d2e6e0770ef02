"""What a language model makes of a typed text, taught to its hearing of the same words.

Shapes: B batch, S LM steps, D dim, V ids; n cells of a reply.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.lm import Sampler, Sampling, SpeechLM, collect
from lalia.lm.generation import HIDDEN
from lalia.streams import Streams, TokenSequence, nothing, pad_batch

__all__ = ["TextDistillation"]

_GREEDY = Sampler(Sampling(temperature=0.0))


@dataclass(frozen=True)
class _Reply:
    """A reply of the teacher: its ids, and the hidden states [n, D] that they and the end, where it came, are of."""

    ids: Sequence[int]
    hidden: Tensor


class TextDistillation:
    """Cross-modal distillation, arXiv:2410.02678 §3: the LM that reads is the teacher of the same LM that hears.

    Two terms, each a mean over the cells of a reply and then over utterances. ``kl`` is the divergence of the
    distribution of the next token after the spoken words from that after the typed ones, along the teacher's own greedy
    reply (as far as it is ``reply_tokens`` long; arXiv:2309.00916 learns along such continuations, DiVA at the first
    token alone). ``hidden`` is the squared distance of the hidden states that the reply begins with, in units of
    the square of the teacher's.

    A batch is ``{"streams": Streams}``: what was heard, the same as text, and what stands around it; of the other
    streams of the layout there is nothing. The LM stays as it is: what learns is the input of what was heard.

    :param heard: the stream that is heard; the layout has it.
    :param typed: the stream of the same words as text.
    :param place: the stream of the layout at whose end typed words stand.
    :param reply: the stream that the LM predicts.
    :param reply_tokens: the longest reply.
    :param weights: of the two terms.
    """

    players = ("model",)

    def __init__(
        self,
        lm: SpeechLM,
        *,
        heard: str,
        typed: str,
        place: str,
        reply: str,
        reply_tokens: int,
        weights: Mapping[str, float],
    ) -> None:
        self.lm, self.heard, self.typed, self.place, self.reply = lm, heard, typed, place, reply
        self.reply_tokens, self.weights = reply_tokens, dict(weights)
        self.step = 0
        self._taught: dict[tuple[int, ...], _Reply] = {}
        """By the typed words: the teacher never changes its mind."""

    def modules(self, player: str) -> list[nn.Module]:
        return [self.lm.input(self.heard)]

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        return dict.fromkeys(self.weights, float(len(batch["streams"][self.typed])))

    def losses(self, player: str, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        spoken, written = self._both({n: s.to("cpu") for n, s in batch["streams"].items()})
        replies = self._teach(written, batch["streams"][self.typed])
        grid = self.lm.pack({**spoken, self.reply: _tokens([r.ids for r in replies])})
        position = grid.positions[self.reply][:, 0]
        sizes = torch.tensor([len(r.hidden) for r in replies], device=position.device)[:, None]
        there = (position >= 0) & (position < sizes)
        learned = self.lm.hidden_of(self.reply, self.lm(grid))[there].float()
        taught = torch.cat([r.hidden.float() for r in replies]).to(learned)
        head = self.lm.linear(self.reply)
        with torch.no_grad():
            target = head.logits(taught, head.scope(0)).float().log_softmax(-1)
        guess = head.logits(learned, head.scope(0)).float().log_softmax(-1)
        divergence = F.kl_div(guess, target, reduction="none", log_target=True).sum(-1)
        first = position[there] == 0
        distance = (learned[first] - taught[first]).square().mean(-1)
        return {
            "kl": (divergence / sizes.expand_as(there)[there]).sum(),
            "hidden": (distance / taught[first].square().mean(-1)).sum(),
        }

    def _both(self, streams: Streams) -> tuple[Streams, Streams]:
        """What stands before the reply where the words are spoken, and where they are typed."""
        lm, typed = self.lm, streams[self.typed]
        given = (n for n in lm.layout.streams if n != self.reply and n not in lm.layout.markers)
        spoken = {n: streams[n] if n in streams else nothing(lm.specs[n], len(typed)) for n in given}
        begin = lm.layout.streams[0]
        if begin != self.heard:
            spoken[begin] = lm.without_start(spoken[begin])
        written = {
            **spoken,
            self.heard: nothing(lm.specs[self.heard], len(typed)),
            self.place: _end_to_end(spoken[self.place], typed),
        }
        return spoken, written

    def _teach(self, written: Streams, typed: TokenSequence) -> list[_Reply]:
        """The teacher's reply to each row."""
        keys = [tuple(typed.row(b).values[0, 0].tolist()) for b in range(len(typed))]
        new = [b for b, key in enumerate(keys) if key not in self._taught]
        if new:
            known = {n: pad_batch([s.row(b) for b in new]) for n, s in written.items()}
            # In the precision of the weights: for one token at a time, those are multiplied fastest as they are.
            with torch.autocast(self.lm.start.device.type, enabled=False):
                made = collect(
                    self.lm.generate(
                        known,
                        sampler=_GREEDY,
                        complete=list(known),
                        limits={self.reply: self.reply_tokens},
                        hidden_of=self.reply,
                    )
                )
            for i, b in enumerate(new):
                ids = made[self.reply].row(i).values[0, 0].tolist() if self.reply in made else []
                self._taught[keys[b]] = _Reply(ids, made[HIDDEN].row(i).values[0].half().cpu().clone())
        return [self._taught[key] for key in keys]


def _end_to_end(first: TokenSequence, second: TokenSequence) -> TokenSequence:
    """Codes behind codes, row by row [B, 1, T]."""
    return pad_batch(
        [
            TokenSequence(torch.cat([first.row(b).values, second.row(b).values], dim=2), first.lengths[b : b + 1] + n)
            for b, n in enumerate(second.lengths.tolist())
        ]
    )


def _tokens(rows: Sequence[Sequence[int]]) -> TokenSequence:
    made = (torch.tensor(row, dtype=torch.long) for row in rows)
    return pad_batch([TokenSequence(x[None, None], torch.tensor([len(x)])) for x in made])
