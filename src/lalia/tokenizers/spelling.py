"""A recogniser's words as a text LM would see them: the LM's own embeddings of what each token spells.

Shapes: S steps, R likely tokens of a step, V tokens of the recogniser, D dim of the LM.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from lalia.checkpoints import fetch
from lalia.checkpoints.tensors import Tensors, read_config, weight_files
from lalia.errors import WeightsError
from lalia.tokenizers.text import BYTES

__all__ = ["Spelling"]

_TABLES = ("embed_tokens.weight", "wte.weight")
"""How the names of the input embeddings end, in the families of ``transformers``."""

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"

Tokenize = Callable[[Sequence[str]], list[list[int]]]


class Spelling(nn.Module):
    """The mean embedding Ē(v) of the LM's tokens that spell the recogniser's token v, and expectations of it.

    A transcript's first token is spelled without the space before it, as a text begins.

    :param vocabulary: what each token of the recogniser spells.
    :param text: the LM: known weights, a directory or a hub id; ``bytes`` for random embeddings of bytes, the same
        each time.
    :param dim: D, of ``bytes``.
    :raises WeightsError: the LM cannot be had, or has no ``tokenizer.json`` or no embeddings that are found.
    """

    matrix: Tensor
    spellable: Tensor

    def __init__(self, vocabulary: Sequence[str], text: str, dim: int) -> None:
        super().__init__()
        tokenize, matrix = _bytes(dim) if text == BYTES else _open(text)
        self.register_buffer("matrix", matrix, persistent=False)
        whole = [piece if _UNFINISHED not in piece else "" for piece in vocabulary]
        begun = [piece.lstrip(" ") for piece in whole]
        texts = list(dict.fromkeys([*whole, *begun]))
        ids = dict(zip(texts, tokenize(texts), strict=True))
        opening, within = (_Pieces([ids[piece] for piece in pieces]) for pieces in (begun, whole))
        self._tokenize, self._written = tokenize, whole
        self.register_buffer("spellable", torch.stack([opening.counts > 0, within.counts > 0]), persistent=False)
        self._pieces = opening, within

    @property
    def dim(self) -> int:
        """D."""
        return self.matrix.shape[1]

    def spell(self, text: str) -> Tensor:
        """The LM's own embeddings of a text [S', D], as if it were typed."""
        return self.matrix[self._tokenize([text])[0]].float()

    def words(self, likely: Tensor, log_probs: Tensor, *, opening: bool = True, sure: float = 1.0) -> Tensor:
        """Like ``forward``, but a word about which there is no doubt enters as the LM itself would write it [S', D].

        The mean of several embeddings is none of them: of a rare word that the recogniser and the LM cut in different
        places it keeps little. What is certain needs no expectation.

        :param sure: the probability from which on a token is beyond doubt; over 1, none is.
        """
        ids = likely[:, 0].tolist() if len(likely) else []
        pieces = [self._written[i] if i < len(self._written) else "" for i in ids]
        starts = [s for s, piece in enumerate(pieces) if s == 0 or piece.startswith(" ")]
        out = [self.matrix.new_zeros((0, self.dim), dtype=torch.float32)]
        for a, b in pairwise([*starts, len(ids)]):
            first = opening and a == 0
            text = "".join(pieces[a:b])
            text = text.lstrip(" ") if first else text
            if text and all(pieces[a:b]) and float(log_probs[a:b, 0].min().exp()) >= sure:
                out.append(self.spell(text))
            else:
                out.append(self(likely[a:b], log_probs[a:b], opening=first))
        return torch.cat(out)

    def forward(self, likely: Tensor, log_probs: Tensor, *, opening: bool = True) -> Tensor:
        """The expected embedding [S', D] of each step, over those of its likely tokens that have a spelling.

        A step whose likeliest token has none (a lone space at the beginning, part of a character) is left out.

        :param likely: ids [S, R], best first.
        :param log_probs: [S, R].
        :param opening: the first step begins a text.
        """
        if not len(likely):
            return self.matrix.new_zeros((0, self.dim), dtype=torch.float32)
        kinds = torch.ones(len(likely), dtype=torch.long)
        kinds[0] = int(not opening)
        # What ends a transcript lies above what it can say.
        text = likely < self.spellable.shape[1]
        ids = torch.where(text, likely, 0)
        possible = self.spellable[kinds[:, None], ids] & text
        kept = possible[:, 0]
        weights = log_probs.masked_fill(~possible, -torch.inf)[kept].softmax(-1)
        out = self.matrix.new_zeros((len(weights), self.dim), dtype=torch.float32)
        ids, possible, kinds = ids[kept], possible[kept], kinds[kept]
        for kind, pieces in enumerate(self._pieces):
            step, rank = (possible & (kinds == kind)[:, None]).nonzero(as_tuple=True)
            of, rows = pieces.take(ids[step, rank])
            share = weights[step, rank] / pieces.counts[ids[step, rank]]
            out.index_add_(0, step[of], self.matrix[rows].float() * share[of, None])
        return out


class _Pieces:
    """Lists of ids, one after another."""

    def __init__(self, lists: Sequence[Sequence[int]]) -> None:
        self.counts = torch.tensor([len(x) for x in lists])
        self._starts = self.counts.cumsum(0) - self.counts
        self._flat = torch.tensor([i for x in lists for i in x])

    def take(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """The ids of some of the lists, and before them which of these each belongs to."""
        counts = self.counts[which]
        of = torch.repeat_interleave(torch.arange(len(which)), counts)
        within = torch.arange(len(of)) - (counts.cumsum(0) - counts)[of]
        return of, self._flat[self._starts[which][of] + within]


def _bytes(dim: int) -> tuple[Tokenize, Tensor]:
    matrix = torch.randn(260, dim, generator=torch.Generator().manual_seed(0))
    return lambda texts: [list(text.encode()) for text in texts], matrix


def _open(text: str) -> tuple[Tokenize, Tensor]:
    """The tokenizer and the input embeddings of an LM; its layers are not read."""
    from tokenizers import Tokenizer

    folder = Path(text).expanduser() if Path(text).expanduser().is_dir() else fetch(text)
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # noqa: BLE001  tokenizers raises nothing more precise
        raise WeightsError(f"{text!r} has no tokenizer.json that can be read ({error}). Name another LM.") from None
    tensors = Tensors(weight_files(folder))
    names = [name for name in tensors if name.endswith(_TABLES)]
    if len(names) != 1:
        raise WeightsError(f"{text!r} has {len(names)} tables of input embeddings. Name a causal text LM.")
    config = read_config(folder)
    matrix = tensors[names[0]]
    if str(config.get("model_type", "")).startswith("gemma"):
        # They enter its first layer scaled.
        matrix = matrix.float() * matrix.shape[1] ** 0.5

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    return tokenize, matrix
