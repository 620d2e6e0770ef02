"""Frames per second of training steps of Moshi: forward, backward, clipping and fused AdamW, alike on both sides.

transformers' own loss gives its depth decoder the word of the step before, so that the peer's two decoders are called
one after the other here, each with its own loss: of the same steps and cells as lalia's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.moshi import (
    CODEBOOKS,
    LAYOUT,
    NO_CODE,
    NO_WORD,
    SPECS,
    lalia_lm,
    least_work,
    random_streams,
    transformers_moshi,
)
from benchmarks.worker import Gate
from lalia.layouts import Grid

__all__ = ["embed", "lalia", "peer"]


def lalia(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """lalia's side."""
    lm = lalia_lm()
    grid = lm.pack(random_streams(options["rows"], options["frames"]))
    _train(gate, options, list(lm.parameters()), lambda: lm.loss(grid)["total"])
    # Backward costs twice what forward does. Each frame sees those before it: half of the row on average.
    return {"operations": 3 * least_work(options["rows"] * options["frames"], options["frames"] / 2)}


def peer(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """The side of transformers."""
    model = transformers_moshi().train()
    cells = _cells(LAYOUT.pack(random_streams(options["rows"], options["frames"]), SPECS))
    parameters = [p for n, p in model.named_parameters() if not n.startswith("audio_encoder.")]
    _train(gate, options, parameters, lambda: _loss(model, *cells))
    return {}


def _cells(grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Words [B, S], and codes [B, K, S] of both sides, with transformers' ids for what is not there."""

    def ids(stream: str, absent: int) -> Tensor:
        return torch.where(grid.present(stream), grid.values[stream], absent)

    return ids("text", NO_WORD)[:, 0], ids("moshi", NO_CODE), ids("user", NO_CODE)


def embed(model: Any, words: Tensor, codes: Tensor) -> Tensor:
    """What transformers' decoder is given for words [B, S] and codes of both sides [B, 2 x K, S]."""
    total: Tensor = model.decoder.model.embed_tokens(words)
    return total + sum(table(codes[:, k]) for k, table in enumerate(model.embed_tokens))


def _loss(model: Any, words: Tensor, own: Tensor, heard: Tensor) -> Tensor:
    def before(ids: Tensor, absent: int) -> Tensor:
        return F.pad(ids, (1, 0), value=absent)[..., :-1]

    x = embed(model, before(words, NO_WORD), before(torch.cat([own, heard], dim=1), NO_CODE))
    labels = words.masked_fill(words == NO_WORD, -100)
    text = model.decoder(inputs_embeds=x, labels=labels, shift_labels=labels, use_cache=False)
    codes = own.transpose(1, 2).reshape(-1, CODEBOOKS)
    depth = model.depth_decoder(
        input_ids=torch.cat([words.reshape(-1, 1), codes[:, :-1]], dim=1),
        last_hidden_state=text.last_hidden_state.flatten(0, 1)[:, None],
        labels=codes,
        use_cache=False,
    )
    loss: Tensor = text.loss + depth.loss
    return loss


def _train(
    gate: Gate, options: Mapping[str, Any], parameters: Sequence[nn.Parameter], loss_of: Callable[[], Tensor]
) -> None:
    with torch.no_grad():
        check = float(loss_of())
    optimizer = torch.optim.AdamW(parameters, lr=3e-5, betas=(0.9, 0.95), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=options["precision"] == "bf16"):
            loss = loss_of()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    step()
    for _ in gate.rounds(amount=options["rows"] * options["frames"], check=check):
        step()
