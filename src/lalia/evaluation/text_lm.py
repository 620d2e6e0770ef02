"""How likely a text LM finds texts, and what is said after a prompt: of transcripts, and as a topline without sound."""

import inspect
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lalia.checkpoints import fetch
from lalia.checkpoints.quiet import quiet
from lalia.errors import ConfigError, DataError, WeightsError
from lalia.files import sha256
from lalia.nn.branches import Branches

__all__ = ["CausalLM", "TextLM"]

_SEPARATOR = "<|endoftext|>"
"""What parts documents where models were trained on many in a row (GPT-2, SmolLM2, Qwen, OLMo)."""

_TOKENS = 1024
"""In a batch with its padding, so that the scores of all words of the vocabulary need not much memory."""


_TREE = 256
"""Tokens of texts that are scored as one, with what they begin with computed once: each looks over all of them."""

_LEAST_SHARED = 8
"""Tokens that these begin with alike."""


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

        What texts of a batch begin with alike, as endings do behind one prompt, is computed once.

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
        asked = [i for i, row in enumerate(rows) if heads[i] < len(row) - 1]
        trees = list(_trees(rows, asked, most=_TREE if len(asked) > 1 and self._branching else 0))
        for batch in _batches([tree.size for _, tree in trees]):
            members = [trees[t] for t in batch]
            for i, values in self._score(model, rows, heads, members):
                found[i] = values
        return found

    def _check(self, model: Any, rows: Sequence[Sequence[int]]) -> None:
        most = getattr(model.config, "max_position_embeddings", None) or getattr(model.config, "n_positions", None)
        longest = max(map(len, rows), default=0)
        if most is not None and longest > most:
            raise DataError(f"A text has {longest} tokens, and {self.name} reads {most}. Give it in shorter parts.")

    @torch.inference_mode()
    def _score(
        self,
        model: Any,
        rows: Sequence[Sequence[int]],
        heads: Sequence[int],
        trees: Sequence[tuple[Sequence[int], Branches]],
    ) -> list[tuple[int, Tensor]]:
        """What each token behind the head is predicted with, by row. A tree is a row of the batch, padded behind."""
        size = max(tree.size for _, tree in trees)
        ids, places = (torch.zeros(len(trees), size, dtype=torch.long) for _ in range(2))
        asked: list[tuple[int, int, Tensor]] = []
        for b, (members, tree) in enumerate(trees):
            places[b, : tree.size] = tree.positions()
            for i, shared, spans in zip(members, tree.shared, tree.spans(), strict=True):
                # The last token is predicted, and predicts nothing.
                ids[b, slice(*spans[-1])] = torch.tensor(rows[i][shared:-1], dtype=torch.long)
                asked.append((b, i, torch.cat([torch.arange(*span) for span in spans])[heads[i] :]))
        told: dict[str, Any] = {"attention_mask": torch.arange(size) < torch.tensor([[t.size] for _, t in trees])}
        if any(len(members) > 1 for members, _ in trees):
            told = {"attention_mask": _mask([tree for _, tree in trees], size), "position_ids": places}
        # The scores of all words of the vocabulary cost as much as some layers.
        kept = torch.cat([at for *_, at in asked]).unique()
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            told["logits_to_keep"] = kept
        else:
            kept = torch.arange(size)
        told = {name: value.to(self._device) for name, value in told.items()}
        logits = model(input_ids=ids.to(self._device), use_cache=False, **told).logits.float()
        whole = logits.logsumexp(2)
        found = []
        for b, i, at in asked:
            at = torch.searchsorted(kept, at).to(self._device)
            targets = torch.tensor(rows[i][heads[i] + 1 :], device=self._device)
            found.append((i, (logits[b, at, targets] - whole[b, at]).cpu()))
        return found

    @cached_property
    def _branching(self) -> bool:
        """Whether the model takes a mask and positions of its own, by which texts share a prompt: as it shows."""
        model, _, opening = self._load()
        if (
            getattr(model.config, "sliding_window", None)
            or "position_ids" not in inspect.signature(model.forward).parameters
        ):
            return False
        n = model.config.vocab_size
        trunk = [opening, *(i * 7 % n for i in range(1, 2 * _LEAST_SHARED))]
        rows = [[*trunk, 1 % n, 2 % n, 3 % n], [*trunk, 2 % n, 3 % n, 1 % n]]
        told = []
        try:
            for most in (0, _TREE):
                of_row = dict(self._score(model, rows, [0, 0], list(_trees(rows, [0, 1], most=most))))
                told.append(torch.stack([of_row[0], of_row[1]]))
        except (IndexError, RuntimeError, TypeError, ValueError):
            return False
        return torch.allclose(told[0], told[1], atol=1e-3)

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


def _trees(rows: Sequence[Sequence[int]], asked: Sequence[int], *, most: int) -> Iterator[tuple[list[int], Branches]]:
    """Rows by number, those together that begin alike.

    :param most: tokens of those that are together.
    """
    members: list[int] = []
    steps: list[int] = []
    shared: list[int] = []
    for i in sorted(asked, key=lambda i: list(rows[i])):
        size, alike = len(rows[i]) - 1, 0
        if members:
            last = rows[members[-1]]
            longest = min(len(last) - 1, size)
            alike = next((t for t in range(longest) if last[t] != rows[i][t]), longest)
            if alike < _LEAST_SHARED or sum(steps) - sum(shared) + size - alike > most:
                yield members, Branches(tuple(steps), tuple(shared))
                members, steps, shared, alike = [], [], [], 0
        members.append(i)
        steps.append(size)
        shared.append(alike)
    if members:
        yield members, Branches(tuple(steps), tuple(shared))


def _mask(trees: Sequence[Branches], size: int) -> Tensor:
    """What is added to the scores of attention [B, 1, S, S]: nothing where a token sees another."""
    seen = torch.eye(size, dtype=torch.bool).repeat(len(trees), 1, 1)
    for of_tree, tree in zip(seen, trees, strict=True):
        for spans in tree.spans():
            *before, (start, stop) = spans
            for a, b in before:
                of_tree[start:stop, a:b] = True
            of_tree[start:stop, start:stop] = torch.ones(stop - start, stop - start, dtype=torch.bool).tril()
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


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
