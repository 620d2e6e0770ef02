"""Which frames each token of a known text covers: a monotonic path through attention weights.

The cross-attention of some heads of an encoder-decoder recogniser follows the sound (Radford et al.,
arXiv:2212.04356; the heads are named in the checkpoint). Shapes: A heads, S decoder steps, T frames.
"""

import numpy as np

__all__ = ["attention_scores", "monotonic_path"]


def attention_scores(weights: np.ndarray, *, smooth: int = 7) -> np.ndarray:
    """How well each frame fits each step, [S, T].

    Each frame is standardised over the steps, so that a frame to which every step attends says nothing;
    then each head is median-filtered in time, and the heads are averaged.

    :param weights: attention [A, S, T] of steps to frames.
    :param smooth: width of the filter in frames, odd.
    """
    mean, spread = weights.mean(axis=1, keepdims=True), weights.std(axis=1, keepdims=True)
    # Where all steps attend alike, what differs is rounding.
    z = np.where(spread > 1e-6 * np.abs(mean), (weights - mean) / np.maximum(spread, 1e-30), 0.0)
    padded = np.pad(z, ((0, 0), (0, 0), (smooth // 2, smooth // 2)), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, smooth, axis=2), axis=-1).mean(axis=0)


def monotonic_path(scores: np.ndarray) -> np.ndarray:
    """The first frame of every step [S], where steps come in order, each has at least one frame, and all
    frames together score the most (Viterbi; the first step starts at frame 0).

    :param scores: [S, T] with S <= T.
    """
    s, t = scores.shape
    assert 1 <= s <= t, "every step needs a frame of its own"
    best = np.full(s, -np.inf)
    best[0] = scores[0, 0]
    entered = np.zeros((t, s), bool)  # whether the best path to (frame, step) comes from the step before
    for j in range(1, t):
        stay, enter = best, np.concatenate(([-np.inf], best[:-1]))
        entered[j] = enter > stay
        best = np.maximum(stay, enter) + scores[:, j]
    starts = np.zeros(s, np.int64)
    step = s - 1
    for j in range(t - 1, 0, -1):
        if entered[j, step]:
            starts[step] = j
            step -= 1
    assert step == 0, "the path begins at the first step"
    return starts
