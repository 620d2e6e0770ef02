"""Generative perplexity: how surprising a text LM finds what was generated. Lower is more like language.

Of the mean negative log-likelihood NLL_i of a token of text i there are two averages in use, and neither is the other:

- ``mean``: ``mean_i exp(NLL_i)``, the PPX of GSLM (fairseq ``gslm/metrics/asr_metrics/ppx.py``, which gives the
  median too). A few texts that make no sense dominate it.
- ``geometric``: ``exp(mean_i NLL_i)``, the GenPPL of slamkit (``generative_metric.py``). Never more than the other.

Both depend on the LM (GSLM: wmt19.en of fairseq, on text in lower case; slamkit: Llama-3.2-1B, on what Whisper wrote),
on the recogniser, and on case and punctuation. Both fall where a text repeats itself: compare systems that are as
diverse as one another, see `tradeoff`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lalia.errors import DataError, LaliaError
from lalia.evaluation.results import tool
from lalia.evaluation.statistics import bootstrap, mean
from lalia.evaluation.text_lm import TextLM

__all__ = ["evaluate_perplexity", "summarize"]


def evaluate_perplexity(texts: Mapping[str, str], lm: TextLM, *, seed: int = 0) -> dict[str, Any]:
    """The perplexity of texts by id, such as transcripts of generated speech, as they are, without space around them.

    A text without tokens, one that is too long for the LM, and one whose likelihood is no number have failed, and are
    counted as such.

    :param seed: of the bootstrap over texts.
    :returns: ``asked``, ``answered``, ``failed``; ``summary``: estimates of the ``mean``, the ``geometric`` mean and
        the ``median``; ``items``: per text its tokens, ``nll`` in nats per token, and perplexity; ``failures``.
    """
    stripped = {key: texts[key].strip() for key in sorted(texts)}
    items: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    for key, scored in zip(stripped, _scores(lm, list(stripped.values())), strict=True):
        try:
            items.append({"id": key, **_item(scored)})
        except DataError as error:
            failures.append({"id": key, "reason": str(error)})
    return {
        "asked": len(texts),
        "answered": len(items),
        "failed": len(failures),
        "settings": {"lm": tool(lm)},
        "summary": summarize([item["nll"] for item in items], seed=seed),
        "items": items,
        "failures": failures,
    }


def _scores(lm: TextLM, texts: Sequence[str]) -> list[Tensor | LaliaError]:
    """All at once where that is possible; else those that cannot be scored say why."""
    try:
        return [*lm.log_probs(texts)]
    except LaliaError:
        found: list[Tensor | LaliaError] = []
        for text in texts:
            try:
                found += lm.log_probs([text])
            except LaliaError as error:
                found.append(error)
        return found


def _item(scored: Tensor | LaliaError) -> dict[str, Any]:
    if isinstance(scored, LaliaError):
        raise DataError(str(scored))
    if not scored.numel():
        raise DataError("It has no tokens.")
    nll = -float(scored.double().mean())
    if not math.isfinite(nll):
        raise DataError(f"The LM scores its {scored.numel()} tokens with {-nll} nats each. Check its weights.")
    return {"tokens": scored.numel(), "nll": nll, "perplexity": math.exp(nll)}


def summarize(nlls: Sequence[float], *, seed: int = 0) -> dict[str, Any]:
    """The averages of perplexities with their intervals.

    :param nlls: in nats per token, one per text.
    """
    perplexities = [math.exp(nll) for nll in nlls]
    return {
        "mean": mean(perplexities, seed=seed).to_dict(),
        "geometric": bootstrap(lambda x: np.exp(x.mean(1)), nlls, seed=seed).to_dict(),
        "median": bootstrap(lambda x: np.median(x, 1), perplexities, seed=seed).to_dict(),
    }
