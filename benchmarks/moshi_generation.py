"""Frames per second of Moshi's answer to what it hears: lalia's SpeechLM.generate beside transformers' two decoders.

transformers' ``generate`` hears nothing while it speaks, so that its decoders are driven as it drives them: the decoder
one step on its cache, the depth decoder code by code on a cache of its own, with transformers' own filters of logits.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.moshi import CODEBOOKS, NO_CODE, NO_WORD, lalia_lm, least_bytes, least_work, random_streams
from benchmarks.moshi import transformers_moshi as make_peer
from benchmarks.moshi_training import embed
from benchmarks.worker import Gate
from lalia.lm import Sampler, Sampling, collect
from lalia.streams import Streams

__all__ = ["lalia", "peer"]

_WORDS = Sampling(temperature=0.7, top_k=25)
_CODES = Sampling(temperature=0.8, top_k=250)
"""As Kyutai's server has them."""

_CHECKED = 6
"""Frames that both make without chance, and must make alike."""


def _check(words: Tensor, codes: Tensor) -> float:
    """A number of the words [B, T] and codes [B, K, T] that both must find."""
    return float(words.float().mean() + codes.float().mean())


def lalia(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """lalia's side."""
    lm = lalia_lm().eval()
    rows, frames = options["rows"], options["frames"]

    def work(frames: int, sampler: Sampler) -> Streams:
        user = {"user": random_streams(rows, frames)["user"]}
        limits = {"text": frames, "moshi": frames}
        return collect(lm.generate(user, complete=("user",), limits=limits, sampler=sampler))

    sampler = Sampler(_CODES, streams={"text": _WORDS})
    made = work(_CHECKED, Sampler(Sampling(temperature=0.0)))
    check = _check(made["text"].values[:, 0], made["moshi"].values)
    work(frames, sampler)
    for _ in gate.rounds(amount=rows * frames, check=check):
        made = work(frames, sampler)
        assert made["moshi"].lengths.tolist() == [frames] * rows, made["moshi"].lengths
    # The last codes come a step after the last frame.
    return {
        "operations": sum(rows * least_work(1, t) for t in range(frames + 1)),
        "bytes": sum(least_bytes(rows * t) for t in range(frames + 1)),
    }


def peer(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """The side of transformers."""
    model = make_peer().eval()
    rows, frames = options["rows"], options["frames"]

    def work(frames: int, *, greedy: bool) -> tuple[Tensor, Tensor]:
        return _generate(model, random_streams(rows, frames)["user"].values, greedy=greedy)

    check = _check(*work(_CHECKED, greedy=True))
    work(frames, greedy=False)
    for _ in gate.rounds(amount=rows * frames, check=check):
        work(frames, greedy=False)
    return {}


@torch.inference_mode()
def _generate(model: Any, user: Tensor, *, greedy: bool) -> tuple[Tensor, Tensor]:
    """Words [B, T] and codes [B, K, T] to the user's codes [B, K, T]."""
    from transformers import DynamicCache, LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper

    def filters(settings: Sampling) -> Any:
        return LogitsProcessorList([TemperatureLogitsWarper(settings.temperature), TopKLogitsWarper(settings.top_k)])

    of_words, of_codes = filters(_WORDS), filters(_CODES)

    def pick(logits: Tensor, warp: Any) -> Tensor:
        """[B, 1, V] to [B, 1]."""
        if greedy:
            return logits[:, -1].argmax(dim=-1, keepdim=True)
        return torch.multinomial(warp(None, logits[:, -1]).softmax(dim=-1), 1)

    rows, _, frames = user.shape
    nothing = torch.full((rows, CODEBOOKS), NO_CODE)
    word, own, heard = torch.full((rows, 1), NO_WORD), nothing, nothing
    cache = DynamicCache(config=model.decoder.config)
    words, codes = [], []
    for step in range(frames + 1):
        x = embed(model, word, torch.cat([own, heard], dim=1)[..., None])
        out = model.decoder(inputs_embeds=x, past_key_values=cache, use_cache=True)
        last = step == frames
        word = torch.full_like(word, NO_WORD) if last else pick(out.logits, of_words)
        depth, drawn, entering = DynamicCache(config=model.depth_decoder.config), [], word
        for k in range(CODEBOOKS):
            logits = model.depth_decoder(
                input_ids=entering, last_hidden_state=out.last_hidden_state, past_key_values=depth, use_cache=True
            ).logits
            # Before a codebook has begun, and after it is over, there is no code.
            there = not last if k == 0 else step > 0
            entering = pick(logits, of_codes) if there else torch.full_like(word, NO_CODE)
            drawn.append(entering)
        own = torch.cat(drawn, dim=1)
        heard = nothing.clone()
        if not last:
            heard[:, 0] = user[:, 0, step]
        if step:
            heard[:, 1:] = user[:, 1:, step - 1]
        words.append(word)
        codes.append(own)
    late = torch.stack(codes, dim=-1)
    return torch.cat(words[:-1], dim=1), torch.cat([late[:, :1, :-1], late[:, 1:, 1:]], dim=1)
