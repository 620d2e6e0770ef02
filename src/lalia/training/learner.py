"""Everything of an objective that training changes, under names: what a checkpoint holds of a model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from torch import Tensor

from lalia.errors import CheckpointError, ConfigError
from lalia.training.checkpoint import copy_into
from lalia.training.distributed import broadcast
from lalia.training.optimizer import Average, Player, adamw, name_tensors
from lalia.training.protocols import Objective

__all__ = ["Learner"]


class Learner:
    """The players of an objective with their optimizers, and the running average of what they train.

    Takes the parameters that are trainable now. Under torchrun, all ranks get the values of rank 0.

    :param learning_rates: the peak of each player, by name.
    :raises ConfigError: a player has nothing to train.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        learning_rates: Mapping[str, float],
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        no_decay: Sequence[str],
        ema_decay: float | None,
    ) -> None:
        by_player = {player: objective.modules(player) for player in objective.players}
        self.modules = [module for modules in by_player.values() for module in modules]
        self.parameters, self.buffers = name_tensors(by_player)
        self.players: list[Player] = []
        for name, modules in by_player.items():
            own = {id(p) for module in modules for p in module.parameters() if p.requires_grad}
            trained = {n: p for n, p in self.parameters.items() if id(p) in own}
            if not trained:
                raise ConfigError(f"The player {name!r} has no trainable parameter. Let the stage train some of them.")
            rate = learning_rates[name]
            optimizer = adamw(
                trained,
                modules,
                learning_rate=rate,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                no_decay=no_decay,
            )
            self.players.append(Player(name, trained, optimizer, rate))
        self.device = next(iter(self.players[0].parameters.values())).device
        broadcast([*self.parameters.values(), *self.buffers.values()])
        all_trained = {name: p for player in self.players for name, p in player.parameters.items()}
        self.average = None if ema_decay is None else Average(all_trained, ema_decay)

    @contextmanager
    def turn(self, player: Player) -> Iterator[None]:
        """Freeze the players that played before this one, which saves their gradients."""
        own = set(map(id, player.parameters.values()))
        earlier = self.players[: self.players.index(player)]
        frozen = [p for other in earlier for p in other.parameters.values() if id(p) not in own]
        for p in frozen:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in frozen:
                p.requires_grad_(True)

    def averaged(self) -> AbstractContextManager[None]:
        """The modules have the averaged parameters inside the block, where there is an average."""
        return nullcontext() if self.average is None else self.average.applied()

    def trained(self) -> dict[str, list[str]]:
        """The names of each player's trainable parameters."""
        return {player.name: list(player.parameters) for player in self.players}

    def state(self) -> dict[str, Mapping[str, Tensor]]:
        """All tensors in groups: parameters (with buffers), one optimizer per player, average."""
        groups: dict[str, Mapping[str, Tensor]] = {"parameters": {**self.parameters, **self.buffers}}
        groups |= {f"optimizer.{player.name}": player.state() for player in self.players}
        return groups if self.average is None else {**groups, "average": self.average.values}

    def restore(
        self, saved: Mapping[str, Mapping[str, Tensor]], trained: Mapping[str, Sequence[str]], path: Path
    ) -> None:
        """Take over what ``state`` and ``trained`` gave, as read from ``path``.

        :raises CheckpointError: the model is another, or other parameters of it are trained; the first is named.
        """
        copy_into({**self.parameters, **self.buffers}, saved["parameters"], path)
        for player in self.players:
            differing = set(player.parameters) ^ set(trained.get(player.name, ()))
            if differing:
                name = min(differing)
                now, then = ("trained", "not") if name in player.parameters else ("not trained", "was")
                raise CheckpointError(
                    f"{name!r} of player {player.name!r} is {now} here, but {then} in {path}. "
                    "Resume with the same trainable parameters, or start a new run from these weights."
                )
            player.restore(saved[f"optimizer.{player.name}"])
        if self.average is not None:
            # An average that only this run keeps begins with the parameters that it resumes.
            begin = {name: self.parameters[name].detach() for name in self.average.values}
            copy_into(self.average.values, saved.get("average", begin), path)
