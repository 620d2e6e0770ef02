"""Reading several transcripts off a sound: beam search.

Shapes: T frames, D dim, W beams, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lalia.encoders.recognizer import Recognizer
from lalia.encoders.transcripts import cut_loop
from lalia.nn.whisper import Memory
from lalia.streaming import select_rows

__all__ = ["Reading", "search"]


@dataclass(frozen=True)
class Reading:
    """A transcript that may be right.

    :param ids: of text.
    :param log_prob: of all of it, the end included.
    """

    ids: tuple[int, ...]
    log_prob: float


@torch.inference_mode()
def search(recognizer: Recognizer, sound: Tensor, most: int, *, beams: int) -> list[Reading]:
    """The likeliest transcripts of a sound, best first by their mean log-probability (as upstream ranks them).

    :param sound: [T, D], of ``Recognizer.listen``.
    :param most: tokens at most.
    :param beams: W, transcripts that are followed at once, and how many come out at most.
    """
    net, rules = recognizer.net, recognizer.rules
    most = min(most, net.config.target_positions - len(rules.prompt))
    one = net.remember([sound])
    memory = Memory([k.expand(beams, -1, -1, -1) for k in one.keys], [v.expand(beams, -1, -1, -1) for v in one.values])
    state = net.init_state(beams, capacity=most + len(rules.prompt))
    hidden = net.step(torch.tensor([rules.prompt] * beams, device=sound.device), memory, state)[:, -1]
    ids: list[tuple[int, ...]] = [()] * beams
    # All begin alike: only the first counts.
    scores = torch.full((beams,), -torch.inf, device=sound.device)
    scores[0] = 0.0
    found: list[Reading] = []
    for step in range(most + 1):
        logits = net.logits(hidden) + recognizer.forbidden
        if not step:
            logits += recognizer.forbidden_first
        totals = scores[:, None] + logits.log_softmax(-1)
        # With those that end here, as many as are followed are left.
        values, places = totals.flatten().topk(2 * beams)
        going: list[tuple[int, int, float]] = []
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            row, token = divmod(place, totals.shape[1])
            if token == rules.end:
                found.append(Reading(ids[row], value))
            elif len(going) < beams and cut_loop([*ids[row], token]) is None:
                going.append((row, token, value))
        found = sorted(found, key=_mean, reverse=True)[:beams]
        if not going or step == most or (len(found) == beams and going[0][2] / (step + 2) < _mean(found[-1])):
            break
        going += [(going[0][0], going[0][1], -torch.inf)] * (beams - len(going))
        ids = [(*ids[row], token) for row, token, _ in going]
        scores = torch.tensor([value for _, _, value in going], device=sound.device)
        state = select_rows(state, torch.tensor([row for row, _, _ in going], device=sound.device))
        hidden = net.step(torch.tensor([[token] for _, token, _ in going], device=sound.device), memory, state)[:, -1]
    # Where none came to an end in time, those that were followed.
    return found or [Reading(x, score) for x, score in zip(ids, scores.tolist(), strict=True) if score > -torch.inf]


def _mean(reading: Reading) -> float:
    return reading.log_prob / (len(reading.ids) + 1)
