"""The two things that the training loop knows: what is minimised, and on what."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

__all__ = ["Batches", "Follows", "Objective"]


class Objective(Protocol):
    """What is minimised, and which modules are changed for it.

    A *player* is a set of parameters with an optimizer of its own. Most objectives have one, ``("model",)``; a
    GAN has ``("discriminator", "generator")``, which are updated in this order on every batch. While a player
    plays, those that played before it in the step are frozen, so no gradient of theirs is computed. Those still
    to come are not: what is computed through them may be kept for their own turn on the same batch object
    (detach it for this turn; gradients that reach them all the same are dropped).

    ``losses`` gives *sums*, not means, and ``counts`` what they are to be divided by. A term is known by one
    name in ``weights``, ``counts`` and ``losses``, and belongs to one player. A term of weight 0 is measured
    and not trained on. A term may be absent from some batches; one whose count is 0 everywhere is left out of
    the step. Both are also called in evaluation mode, without gradients. Statistics that are not gradients
    (running codebooks) are the objective's own to sum over ranks, with ``sum_over_ranks``; see ``Follows``.
    """

    step: int
    """Updates made so far; set by the loop before every batch."""

    @property
    def players(self) -> tuple[str, ...]:
        """The names of the players, in the order of their turns."""
        ...

    @property
    def weights(self) -> Mapping[str, float]:
        """The weight of each loss term; may change with ``step``."""
        ...

    def modules(self, player: str) -> list[nn.Module]:
        """The modules whose trainable parameters this player updates; they are saved in checkpoints."""
        ...

    def counts(self, batch: Any) -> dict[str, float]:
        """What each term is divided by (such as the number of target tokens), known before the forward pass."""
        ...

    def losses(self, player: str, batch: Any) -> dict[str, Tensor]:
        """The un-normalised sum of each of the player's terms over the batch, as scalars.

        The tensors of ``batch`` are on the device of the player's parameters.
        """
        ...


@runtime_checkable
class Follows(Protocol):
    """An objective with something that follows the batches without gradients, such as running codebooks."""

    def finish_step(self, *, updated: bool) -> None:
        """Called on every rank after all players have played, also where a rank had no batch.

        :param updated: False where the step was skipped because something was not finite.
        """
        ...


class Batches(Protocol):
    """A deterministic source of global batches that can be resumed.

    Each item is the list of micro-batches that fall to *this* rank (empty where there is nothing for it); all
    ranks get the same number of items. A micro-batch is anything that the objective understands; where it has a
    key or an attribute ``seconds`` (of speech) or ``tokens``, throughput is reported in these.
    """

    def __iter__(self) -> Iterator[list[Any]]:
        """Batches from the present position on. Where it ends, the loop asks for the next epoch with a new call."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch that was *handed out*, as JSON data that is the same on all ranks."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go to a position that ``state_dict`` gave."""
        ...
