"""What an update changes: the parameters of each player, their AdamW, and their running average."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["Average", "Player", "adamw", "name_tensors"]


@dataclass(frozen=True, eq=False)
class Player:
    """Parameters that are updated together, and how.

    ``parameters`` are the trainable ones by name; ``learning_rate`` is the peak of the schedule.
    """

    name: str
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.AdamW
    learning_rate: float

    def update(self, scale: float) -> None:
        """One step along the gradients, with ``scale`` times the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * scale
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """The optimizer's tensors, named ``PARAMETER/KEY``."""
        by_tensor = {id(p): name for name, p in self.parameters.items()}
        return {
            f"{by_tensor[id(p)]}/{key}": value
            for p, values in self.optimizer.state.items()
            for key, value in values.items()
        }

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Take over what ``state`` gave; a parameter without an entry has not been updated yet."""
        ordered = [p for group in self.optimizer.param_groups for p in group["params"]]
        index = {id(p): i for i, p in enumerate(ordered)}
        state: dict[int, dict[str, Tensor]] = {}
        for entry, tensor in saved.items():
            name, _, key = entry.rpartition("/")
            state.setdefault(index[id(self.parameters[name])], {})[key] = tensor
        # The public way in, which also puts each tensor on the device its kind of optimizer wants.
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def name_tensors(players: Mapping[str, Sequence[nn.Module]]) -> tuple[dict[str, nn.Parameter], dict[str, Tensor]]:
    """Unique names for the parameters and for the persistent buffers of all players' modules.

    Named ``PLAYER.NAME``, or ``PLAYER.I.NAME`` where a player has several modules; what is shared is named once.
    """
    parameters: dict[str, nn.Parameter] = {}
    buffers: dict[str, Tensor] = {}
    seen: set[int] = set()
    for player, modules in players.items():
        for i, module in enumerate(modules):
            prefix = player if len(modules) == 1 else f"{player}.{i}"
            persistent = module.state_dict(keep_vars=True).keys()
            for name, parameter in module.named_parameters():
                if id(parameter) not in seen:
                    parameters[f"{prefix}.{name}"] = parameter
                    seen.add(id(parameter))
            for name, buffer in module.named_buffers():
                if name in persistent and id(buffer) not in seen:
                    buffers[f"{prefix}.{name}"] = buffer
                    seen.add(id(buffer))
    return parameters, buffers


def adamw(
    parameters: Mapping[str, nn.Parameter],
    modules: Sequence[nn.Module],
    *,
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    no_decay: Sequence[str],
) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101), in one fused kernel where device and type allow, else grouped by tensor lists.

    Weight decay applies to matrices and kernels: not to vectors (biases, scales of norms), not to the tables of
    the embeddings in ``modules``, and not to names that match a pattern of ``no_decay``.
    """
    embeddings = (nn.Embedding, nn.EmbeddingBag)
    tables = {id(part.weight) for module in modules for part in module.modules() if isinstance(part, embeddings)}

    def decays(name: str, parameter: Tensor) -> bool:
        spared = id(parameter) in tables or any(fnmatchcase(name, pattern) for pattern in no_decay)
        return parameter.ndim >= 2 and not spared

    decayed = [p for name, p in parameters.items() if decays(name, p)]
    spared = [p for name, p in parameters.items() if not decays(name, p)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    try:
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)
    except RuntimeError:
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, foreach=True)


class Average:
    """The exponential moving average of parameters; training goes on from the parameters themselves.

    The decay grows from 0.1 towards ``decay`` over the first updates, so that the initial values are forgotten.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters = dict(parameters)
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}

    def update(self, step: int) -> None:
        """Take in the parameters after update ``step`` (from 1)."""
        decay = min(self.decay, step / (step + 9))
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(list(self.values.values()), list(self.parameters.values()), None)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The modules have the averaged values inside the block, and their own again after it."""
        own = {name: p.detach().clone() for name, p in self.parameters.items()}
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(self.values[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(own[name])
