"""How likely a text LM finds texts, and what is said after a prompt: of transcripts, and as a topline without sound."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lalia.checkpoints import fetch
from lalia.checkpoints.quiet import quiet
from lalia.errors import ConfigError, DataError, WeightsError
from lalia.files import sha256

__all__ = ["CausalLM", "TextLM"]

_SEPARATOR = "<|endoftext|>"
"""What parts documents where models were trained on many in a row (GPT-2, SmolLM2, Qwen, OLMo)."""

_TOKENS = 1024
"""In a batch with its padding, so that the scores of all words of the vocabulary need not much memory."""


class TextLM(Protocol):
    """A language model of text. ``name`` and ``version`` go into every result that it had a part in."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    def log_probs(self, texts: Sequence[str], prompts: Sequence[str] | None = None, /) -> list[Tensor]:
        """The log-probability [T] in nats of each token of each text, after its prompt where there is one.

        Their sum is that of the text, so that every reduction (sum, mean, perplexity) is a matter of the caller.
        A text goes on where its prompt stops: the space between them is part of either. One without tokens has
        none ([0]).

        :raises DataError: a text is too long for the model.
        """
        ...

    def log_prob(self, text: str, prompt: str = "") -> float:
        """The log-probability of a text after a prompt."""
        ...


class CausalLM:
    """A causal LM of ``transformers``, in float32; it is read at the first use.

    Prompt and text are tokenised as one, for the tokens of "a b" need not be those of "a" and those of " b". A token
    belongs to the text if a character of it does: of "New" and " York" also the space, and of "un" and "likely" all
    of the word, where it is one token. Texts that share a prompt differ in it then by what they make of its last
    token.

    The first token is predicted from one that opens a text: the one that the tokenizer itself puts there, else
    ``<|endoftext|>``, else its beginning-of-text or end-of-text token. slamkit does without one where the tokenizer
    adds none, and leaves out the first token there. No token ends a text.

    :param weights: known weights (``smollm2-135m-instruct``), or the folder or hub id of a model.
    :param start: the token that opens a text, where it is another one.
    :param device: where it computes.
    :raises WeightsError: the weights cannot be had.
    """

    def __init__(self, weights: str | Path, *, start: str | None = None, device: str | torch.device = "cpu") -> None:
        import transformers

        self.name = Path(weights).name
        self._folder, self._start, self._device = fetch(weights), start, torch.device(device)
        files = sorted(self._folder.glob("*.safetensors"))
        self.version = ", ".join(
            (
                f"weights {'+'.join(sha256(file)[:12] for file in files)}",
                f"transformers {transformers.__version__}",
                "float32",
                *([] if start is None else [f"after {start}"]),
            )
        )
        self._parts: tuple[Any, Any, int] | None = None

    def log_prob(self, text: str, prompt: str = "") -> float:
        """The log-probability of a text after a prompt.

        :raises DataError: they are too long for the model.
        """
        return float(self.log_probs([text], [prompt])[0].sum())

    def log_probs(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> list[Tensor]:
        """The log-probability [T] in nats of each token of each text; a batch gives what each gives, but for rounding.

        :param prompts: one for each text.
        :raises DataError: a text is too long for the model.
        """
        model, tokenizer, opening = self._load()
        before = [""] * len(texts) if prompts is None else prompts
        if len(before) != len(texts):
            raise DataError(f"There are {len(texts)} texts and {len(before)} prompts. Give one prompt for each text.")
        rows: list[list[int]] = []
        heads: list[int] = []
        for prompt, text in zip(before, texts, strict=True):
            ids, ends = _encode(tokenizer, prompt + text)
            rows.append([opening, *ids])
            # What of the last token lies behind the prompt is not the prompt's.
            heads.append(sum(end <= len(prompt) for end in ends) if text else len(ids))
        self._check(model, rows)
        found = [torch.zeros(0)] * len(rows)
        for batch in _batches([len(row) for row in rows]):
            for i, values in zip(batch, self._score(model, [rows[i] for i in batch]), strict=True):
                found[i] = values[heads[i] :]
        return found

    def _check(self, model: Any, rows: Sequence[Sequence[int]]) -> None:
        most = getattr(model.config, "max_position_embeddings", None) or getattr(model.config, "n_positions", None)
        longest = max(map(len, rows), default=0)
        if most is not None and longest > most:
            raise DataError(f"A text has {longest} tokens, and {self.name} reads {most}. Give it in shorter parts.")

    @torch.inference_mode()
    def _score(self, model: Any, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """What each token but the first is predicted with."""
        size = max(map(len, rows))
        if size == 1:
            return [torch.zeros(0)] * len(rows)
        ids = torch.zeros(len(rows), size, dtype=torch.long)
        seen = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], seen[i, : len(row)] = torch.tensor(row), 1
        ids, seen = ids.to(self._device), seen.to(self._device)
        # Padded behind, which a causal model does not see.
        logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1].float()
        chosen = logits.gather(2, ids[:, 1:, None])[..., 0] - logits.logsumexp(2)
        return [chosen[i, : len(row) - 1].cpu() for i, row in enumerate(rows)]

    def _load(self) -> tuple[Any, Any, int]:
        if self._parts is None:
            from transformers import AutoModelForCausalLM, AutoTokenizer

            try:
                with quiet():
                    tokenizer = AutoTokenizer.from_pretrained(self._folder)
                    model, loaded = AutoModelForCausalLM.from_pretrained(
                        self._folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
                    )
                # What is missing would be random, and scored all the same.
                reason = f"its weights lack {min(loaded['missing_keys'])}" if loaded["missing_keys"] else None
            except (OSError, ValueError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            if reason is not None:
                raise WeightsError(f"{self.name} is no causal LM that can be read ({reason}). Name another.")
            if not tokenizer.is_fast:
                raise ConfigError(f"{self.name} has no tokenizer.json, which says where tokens lie. Name another.")
            self._parts = model.eval().to(self._device), tokenizer, _opening(tokenizer, self._start, self.name)
        return self._parts


def _encode(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Ids, and where in the text the characters of each end."""
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return coded["input_ids"], [end for _, end in coded["offset_mapping"]]


def _opening(tokenizer: Any, start: str | None, name: str) -> int:
    known = tokenizer.get_vocab()
    if start is not None:
        if start not in known:
            raise ConfigError(f"{name} has no token {start!r}. Name one that opens its texts.")
        return int(known[start])
    own = tokenizer("a").input_ids[0]
    if own in tokenizer.all_special_ids:
        return int(own)
    for token in (_SEPARATOR, tokenizer.bos_token, tokenizer.eos_token):
        if token in known:
            return int(known[token])
    raise ConfigError(f"{name} does not say which token opens a text. Give it as start.")


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Those of about one length together, so that little is padding; a long one is alone."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[i] > _TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
