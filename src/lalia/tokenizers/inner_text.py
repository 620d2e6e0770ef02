"""Text that keeps time with speech: the inner monologue of Moshi (arXiv:2410.00037 §3.4.4)."""

from collections.abc import Sequence

import torch

from lalia.errors import ConfigError
from lalia.streams import TokenSequence
from lalia.tokenizers.text import Text

__all__ = ["align_text"]


def align_text(text: Text, words: Sequence[tuple[str, float, float]], frames: int) -> TokenSequence:
    """Words on a clock: [B=1, 1, frames].

    The tokens of a word take the frames from the one in which it begins, later where the word before still goes on.
    All other frames are ``pad``; the last of them before a word is ``end_of_pad``, which tells the model a frame ahead
    that a word comes, apart from which word it is.

    :param words: ``(text, start, end)`` with times in seconds from the first frame.
    :param frames: of the stream with which the text keeps time; what falls behind them is lost.
    :raises ConfigError: the text has no rate or no padding.
    """
    config = text.config
    if config.rate is None or config.pad is None:
        raise ConfigError(f"Text({config.name!r}) cannot keep time with speech. Give it rate and pad.")
    row = torch.full((frames,), config.pad, dtype=torch.long)
    free = 0
    for ids, (_, start, _) in zip(text.encode_words([word for word, *_ in words]), words, strict=True):
        at = max(int(start * config.rate), free)
        if at >= frames:
            break
        if config.end_of_pad is not None and at > free:
            row[at - 1] = config.end_of_pad
        free = min(at + len(ids), frames)
        row[at:free] = ids[: free - at]
    return TokenSequence(row[None, None], torch.tensor([frames]))
