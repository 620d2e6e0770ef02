"""SNAC from the names of its own package to those of ``lalia.tokenizers.SNAC``; dictionaries in and out.

Nothing is computed but what is stored apart: a normalised weight is its direction times its length (arXiv:1602.07868),
under the names that PyTorch has for the two since 2.0 or before; a weight that is whole already stays as it is.

Source: the names of the ``snac`` package, 1.0 to 1.2.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from lalia.errors import WeightsError

__all__ = ["state_dict"]

_LENGTH = {
    ".parametrizations.weight.original0": ".parametrizations.weight.original1",
    ".weight_g": ".weight_v",
}
"""Names of the length of a normalised weight, and those of its direction."""


def state_dict(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a ``SNAC``.

    :param tensors: of the package's model by name.
    :raises WeightsError: half of a normalised weight or a whole part is missing, or one is there that SNAC has not.
    """
    made: dict[str, Tensor] = {}
    tables: dict[int, Tensor] = {}
    for name, tensor in _whole(tensors).items():
        side, _, rest = name.partition(".")
        book = re.fullmatch(r"quantizers\.(\d+)\.(codebook|in_proj|out_proj)\.(weight|bias)", rest)
        if side == "quantizer" and book is not None:
            level, part, kind = int(book.group(1)), book.group(2), book.group(3)
            if part == "codebook":
                tables[level] = tensor
            else:
                # A convolution one frame wide is a linear map.
                own = "into" if part == "in_proj" else "out"
                made[f"synthesizer.quantizer.{own}.{level}.{kind}"] = tensor.squeeze(-1) if kind == "weight" else tensor
        elif side == "encoder" and rest.startswith("block."):
            made["encoder." + rest.replace("block.", "layers.")] = tensor
        elif side == "decoder" and rest.startswith("model."):
            made["synthesizer.decoder." + rest.replace("model.", "layers.", 1).replace("block.", "layers.")] = tensor
        else:
            raise WeightsError(f"The checkpoint has {name!r}, which SNAC does not have. Give a SNAC model.")
    if sorted(tables) != list(range(len(tables))) or not tables or len({t.shape for t in tables.values()}) > 1:
        raise WeightsError("The checkpoint lacks codebooks, or has them in several sizes. Give a SNAC model.")
    made["synthesizer.quantizer.tables"] = torch.stack([tables[level] for level in sorted(tables)])
    return made


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with every normalised weight put together."""
    whole = dict(tensors)
    for name in tensors:
        for length, direction in _LENGTH.items():
            stem = name.removesuffix(length)
            if stem == name:
                continue
            if stem + direction not in whole:
                raise WeightsError(f"The checkpoint has {name!r} and no {stem + direction!r}. Give a SNAC model.")
            g, v = whole.pop(name), whole.pop(stem + direction)
            whole[f"{stem}.weight"] = g * v / torch.linalg.vector_norm(v, dim=(1, 2), keepdim=True)
    return whole
