"""Talking Turns (Arora et al., arXiv:2503.01174): does a dialogue system take turns as a judge of turns would?

A judge that has heard people talk says, every 40 ms, how likely each of five events comes next, from the sound so far
(at most 30 s, both sides mixed). Its files and rules are those of ESPnet (``egs2/swbd/asr1/local/
compute_turn_take_metrics.py`` and ``rocauc_chunk_mixed_score.py`` of pull request 5948). The paper says that thresholds
were tuned on Switchboard; those here are the ones of that file, and whether the paper's tables are by them is not
confirmed, so they are parameters.

What was decided is a table of rows ``wid,start,end,label,turn``, one each 40 ms; what the judge says are lines of
``wid p,p,p,p,p p,p,p,p,p ...``, the first for the 40 ms from 0.2 s on.
"""

from lalia.evaluation.talking_turns.agreement import Agreement, Thresholds, agreement, hard_label, macro_f1
from lalia.evaluation.talking_turns.deciding import LONGEST_BACKCHANNEL, decided
from lalia.evaluation.talking_turns.foresight import area_under_curve, areas_under_curve
from lalia.evaluation.talking_turns.judges import TurnJudge
from lalia.evaluation.talking_turns.turns import (
    HOP,
    LABELS,
    Decision,
    Decisions,
    Likelihoods,
    read_decisions,
    read_likelihoods,
    timed,
)

__all__ = [
    "HOP",
    "LABELS",
    "LONGEST_BACKCHANNEL",
    "Agreement",
    "Decision",
    "Decisions",
    "Likelihoods",
    "Thresholds",
    "TurnJudge",
    "agreement",
    "area_under_curve",
    "areas_under_curve",
    "decided",
    "hard_label",
    "macro_f1",
    "read_decisions",
    "read_likelihoods",
    "timed",
]
