"""What units say about phones: purities and mutual information of frames that have both."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lalia.data import Word
from lalia.errors import ConfigError, DataError
from lalia.evaluation.representation.represent import Representation
from lalia.evaluation.statistics import Estimate, jackknife

__all__ = ["UnitPhones", "phone_of_frames", "unit_phones"]


@dataclass(frozen=True)
class UnitPhones:
    """How units and phones go together, over frames, as HuBERT's authors measure it (arXiv:2106.07447, the section on
    the quality of clusters). Intervals are over recordings, by the jackknife.

    :param phone_purity: the share of frames that have their unit's most frequent phone.
    :param cluster_purity: the share of frames that have their phone's most frequent unit.
    :param mutual_information: of the two, in bits.
    :param pnmi: mutual information by the entropy of phones: how much of not knowing the phone the unit takes away.
        NaN where there is one phone.
    :param frames: that were counted.
    """

    phone_purity: Estimate
    cluster_purity: Estimate
    mutual_information: Estimate
    pnmi: Estimate
    frames: int
    phones: int
    units: int


def phone_of_frames(phones: Sequence[Word], frames: int, frame_rate: float) -> list[str | None]:
    """The phone in which the centre (i + 1/2) / frame_rate of each frame lies; None where there is none.

    A centre at the border of two is the second's.

    :raises DataError: the phones are not in order, or overlap.
    """
    labels: list[str | None] = [None] * frames
    before = 0.0
    for phone in phones:
        if not before <= phone.start <= phone.end:
            raise DataError(
                f"The phone {phone.text!r} from {phone.start} to {phone.end} s begins before {before} s or ends before "
                "it begins. Give phones in order."
            )
        before = phone.end
        # In decimals, as where items are cut.
        first, last = (math.ceil(round(t * frame_rate - 0.5, 6)) for t in (phone.start, phone.end))
        for i in range(max(first, 0), min(last, frames)):
            labels[i] = phone.text
    return labels


def unit_phones(
    units: Representation,
    phones: Mapping[str, Sequence[Word]],
    *,
    ignore: Iterable[str] = (),
) -> UnitPhones:
    """Compare units with an alignment.

    :param units: of recordings.
    :param phones: of the same recordings, in order; frames in none of them are not counted.
    :param ignore: labels whose frames are not counted either, such as silence. HuBERT's authors count all.
    :raises ConfigError: these are features.
    :raises DataError: a recording has no alignment, or no frame has a phone.
    """
    if units.recordings and not units.discrete:
        raise ConfigError("Features have no purity. Give units [T].")
    left_out = frozenset(ignore)
    seen: dict[str, tuple[list[str], np.ndarray]] = {}
    for name in sorted(units.recordings):
        if name not in phones:
            raise DataError(f"There is no alignment of {name!r}. Add it to phones.")
        codes: Tensor = units.recordings[name]
        labels = phone_of_frames(phones[name], len(codes), units.frame_rate)
        kept = [i for i, label in enumerate(labels) if label is not None and label not in left_out]
        if kept:
            seen[name] = [str(labels[i]) for i in kept], codes.numpy()[kept]
    if not seen:
        raise DataError("No frame has a phone. Check the alignment and the frame rate.")
    label_names, label_ids = np.unique(np.concatenate([labels for labels, _ in seen.values()]), return_inverse=True)
    unit_names, unit_ids = np.unique(np.concatenate([codes for _, codes in seen.values()]), return_inverse=True)
    shape = len(label_names), len(unit_names)
    # Of the pairs that there are: most there are not.
    pairs, where = np.unique(label_ids * shape[1] + unit_ids, return_inverse=True)
    rows = np.repeat(np.arange(len(seen)), [len(codes) for _, codes in seen.values()])
    counts = np.bincount(rows * len(pairs) + where, minlength=len(seen) * len(pairs)).reshape(len(seen), -1)

    whole = counts.sum(0)

    def estimate(measure: Callable[[np.ndarray], float]) -> Estimate:
        def of(drawn: np.ndarray) -> float:
            table = np.zeros(shape[0] * shape[1])
            table[pairs] = drawn / max(drawn.sum(), 1)
            return measure(table.reshape(shape))

        return jackknife(of(whole), [of(whole - one) for one in counts])

    return UnitPhones(
        phone_purity=estimate(lambda joint: float(joint.max(0).sum())),
        cluster_purity=estimate(lambda joint: float(joint.max(1).sum())),
        mutual_information=estimate(_information),
        pnmi=estimate(lambda joint: _information(joint) / entropy if (entropy := _bits(joint.sum(1))) else math.nan),
        frames=len(where),
        phones=shape[0],
        units=shape[1],
    )


def _bits(shares: np.ndarray) -> float:
    """Their entropy."""
    some = shares[shares > 0]
    return float(-(some * np.log2(some)).sum())


def _information(joint: np.ndarray) -> float:
    return _bits(joint.sum(1)) + _bits(joint.sum(0)) - _bits(joint)
