"""The weights of a model by name, out and in."""

from collections.abc import Mapping

from torch import Tensor, nn

from lalia.errors import CheckpointError

__all__ = ["load_tensors", "tensors_of"]


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


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """The inverse of ``tensors_of``.

    :param where: what the tensors were read from, for the message.
    :raises CheckpointError: a tensor is missing, unknown or of another shape.
    """
    wanted = tensors_of(module)
    for name, t in wanted.items():
        if name not in tensors or tensors[name].shape != t.shape:
            got = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise CheckpointError(
                f"{where} has {got} for {name!r}, but the recipe needs {tuple(t.shape)}. It is of another model."
            )
    unknown = sorted(set(tensors) - set(wanted))
    if unknown:
        raise CheckpointError(f"{where} has weights {unknown[0]!r}, which the recipe does not know. Update lalia.")
    module.load_state_dict(dict(tensors), strict=False)
