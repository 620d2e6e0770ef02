"""The weights of a model by name, out and in."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lalia.errors import CheckpointError
from lalia.store import matches

__all__ = ["TOKENIZERS", "assign_tensors", "load_tensors", "split_tensors", "tensors_of"]

TOKENIZERS = "tokenizers."
"""Before the names of what the tokenizers learned."""


def split_tensors(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """What is in a file: the weights of the model, and those of its tokenizers by stream."""
    own = {n: t for n, t in tensors.items() if not n.startswith(TOKENIZERS)}
    learned: dict[str, dict[str, Tensor]] = {}
    for name in tensors.keys() - own.keys():
        stream, part = name.removeprefix(TOKENIZERS).split(".", 1)
        learned.setdefault(stream, {})[part] = tensors[name].float()
    return own, learned


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; what is shared between parts is there once."""
    seen: set[int] = set()
    out = {}
    for name, t in module.state_dict(keep_vars=True).items():
        if isinstance(t, nn.Parameter):
            if id(t) in seen:
                continue
            seen.add(id(t))
        out[name] = t.detach()
    return out


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], where: str, *, fetched: Sequence[str] = ()) -> None:
    """The inverse of ``tensors_of``.

    :param where: what the tensors were read from, for the message.
    :param fetched: patterns of those that the module has already, and that need not be there.
    :raises CheckpointError: a tensor is missing, unknown or of another shape.
    """
    _check(module, tensors, where, fetched)
    module.load_state_dict(dict(tensors), strict=False)


def assign_tensors(
    module: nn.Module,
    tensors: dict[str, Tensor],
    where: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Like ``load_tensors``, for a module on the meta device: it gets the tensors themselves, and nothing is copied
    that need not be.

    :param tensors: emptied as they are taken, so that each is there once.
    :param dtype: of parameters and buffers in floating point.
    """
    _check(module, tensors, where)
    moved: dict[int, nn.Parameter] = {}
    taken: set[int] = set()
    for part_name, part in module.named_modules():
        prefix = part_name + "." if part_name else ""
        for name, p in part.named_parameters(recurse=False):
            if id(p) not in moved:
                made = tensors.pop(prefix + name).to(device=device, dtype=dtype).contiguous()
                # One tensor for two parameters would be trained twice.
                made = made.clone() if made.data_ptr() in taken else made
                taken.add(made.data_ptr())
                moved[id(p)] = nn.Parameter(made, requires_grad=p.requires_grad)
            part._parameters[name] = moved[id(p)]
        for name, b in part.named_buffers(recurse=False):
            if prefix + name in tensors:
                part._buffers[name] = tensors.pop(prefix + name).to(
                    device=device, dtype=dtype if b.is_floating_point() else None
                )


def _check(module: nn.Module, tensors: Mapping[str, Tensor], where: str, fetched: Sequence[str] = ()) -> None:
    """
    :raises CheckpointError: a tensor is missing, unknown or of another shape.
    """
    wanted = tensors_of(module)
    for name, t in wanted.items():
        if name not in tensors and matches(name, fetched):
            continue
        if name not in tensors or tensors[name].shape != t.shape:
            got = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise CheckpointError(
                f"{where} has {got} for {name!r}, but the recipe needs {tuple(t.shape)}. It is of another model."
            )
    unknown = sorted(set(tensors) - set(wanted))
    if unknown:
        raise CheckpointError(f"{where} has weights {unknown[0]!r}, which the recipe does not know. Update lalia.")
