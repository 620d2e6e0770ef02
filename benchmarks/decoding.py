"""Tokens per second of one answer: a real text LM on lalia's Transformer beside transformers' generate, greedily.

What has to be read for a token are the weights in the form in which they are multiplied, and the keys and values.
"""

from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.worker import Gate
from lalia.checkpoints import fetch
from lalia.layouts import Flat
from lalia.lm import HF, Linear, Lookup, Sampler, Sampling, SpeechLM, collect
from lalia.nn.int8 import quantize_
from lalia.nn.transformer import Transformer
from lalia.streams import Discrete, StreamSpec, TokenSequence

__all__ = ["lalia", "peer"]

_NAME, _WORDS, _END = "smollm2-135m-instruct", 49152, 2
_PROMPT = "Write a long story about a dog that learns to sail a boat."
_BYTES = {"fp32": 2, "bf16": 2, "int8": 1}
"""Of a number of a weight; these weights came in half precision, and so the product with float32 reads them."""


def _prompt() -> list[int]:
    from transformers import AutoTokenizer

    turn = [{"role": "user", "content": _PROMPT}]
    tokenizer = AutoTokenizer.from_pretrained(fetch(_NAME))
    ids: list[int] = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    return ids


def lalia(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """lalia's side."""
    config = SpeechLM.Config(
        layout=Flat("text"),
        inputs={"text": Lookup()},
        backbone=HF.Config(_NAME),
        heads={"text": Linear.Config(tied=True)},
    )
    lm: SpeechLM = config.build({"text": StreamSpec(kind=Discrete(_WORDS), frame_rate=None)}).eval()
    # The first token is the start vector.
    ids = torch.tensor(_prompt()[1:])
    known, new = {"text": TokenSequence(ids[None, None], torch.tensor([len(ids)]))}, options["new"]
    facts = {"check": -float(lm.log_prob(known)["text"][..., : len(ids)].mean())}
    weights = sum(p.numel() for p in lm.parameters())
    match options["precision"]:
        case "bf16":
            lm, facts = lm.bfloat16(), {}
        case "int8":
            quantize_(lm)
            facts = {}
    sampler = Sampler(Sampling(temperature=0)).ban(text=((_END, _END + 1), (_WORDS, _WORDS + 1)))

    def work() -> None:
        made = collect(lm.generate(known, sampler=sampler, max_steps=new))["text"]
        assert made.lengths.tolist() == [new], made.lengths

    work()
    for _ in gate.rounds(amount=new, **facts):
        work()
    assert isinstance(lm.backbone, HF)
    assert isinstance(lm.backbone.model, Transformer)
    shape = lm.backbone.model.config
    kept = 2 * shape.num_layers * shape.kv_heads * shape.size_of_head * (4 if options["precision"] != "bf16" else 2)
    seen = new * (len(ids) + 1) + new * (new - 1) / 2
    # A known word costs a token's arithmetic, but not its share of the reading: the prompt is one step.
    return {
        "operations": 2 * weights * (len(ids) + new),
        "read": new * weights * _BYTES[options["precision"]] + seen * kept,
    }


def peer(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """The side of transformers."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    plain = torch.float32 if options["precision"] == "fp32" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(fetch(_NAME), dtype=torch.float32).eval()
    ids, new = torch.tensor([_prompt()]), options["new"]
    facts = {}
    if options["precision"] == "fp32":
        with torch.no_grad():
            facts = {"check": float(model(ids, labels=ids).loss)}
    model = model.to(plain)
    config = GenerationConfig(
        do_sample=False, max_new_tokens=new, suppress_tokens=[_END], eos_token_id=None, pad_token_id=_END
    )

    def work() -> None:
        with torch.inference_mode():
            made = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        assert made.shape == (1, ids.shape[1] + new), made.shape

    work()
    for _ in gate.rounds(amount=new, **facts):
        work()
    return {}
