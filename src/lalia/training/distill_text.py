"""The task of fitting what is heard to a text LM: it is to answer to it as to the same words, typed."""

from dataclasses import KW_ONLY, dataclass, replace

from lalia.errors import RecipeError
from lalia.lm import Linear, Lookup, Project, SpeechLM
from lalia.training.distributed import rank, world_size
from lalia.training.objectives.text_distillation import TextDistillation
from lalia.training.recordings import Recorded
from lalia.training.stream_batches import StreamBatches
from lalia.training.tasks import Parts, Prepared, StageData, System, Task, first_batches, if_any

__all__ = ["DistillText"]


@dataclass(frozen=True)
class DistillText(Task):
    """Distillation of a frozen text LM's reading into the input by which it hears; see ``TextDistillation``.

    It learns from recordings with their texts: of no replies, and of no labels.

    :param lm: which; the only one when not given.
    :param heard: the stream of what is said as it is heard, features that enter through a ``Project``.
    :param typed: the stream of the same words as text, on the same channel; the layout has no place for it.
    :param place: the stream of the layout at whose end words stand that are typed.
    :param reply: the stream that the LM predicts.
    :param reply_tokens: of the LM's own reply, over which the distributions are compared; DiVA has 1.
    :param hidden: the weight of the match of hidden states, beside the 1 of the divergence.
    :param max_tokens: of the longest stream in a global batch, padding included.
    """

    lm: str | None = None
    _: KW_ONLY
    heard: str = "question"
    typed: str = "typed"
    place: str = "before"
    reply: str = "text"
    reply_tokens: int = 16
    hidden: float = 1.0
    max_tokens: int = 512

    def tiny(self) -> "DistillText":
        return replace(self, reply_tokens=min(self.reply_tokens, 4), max_tokens=min(self.max_tokens, 512))

    def needs(self, system: System) -> tuple[str, ...] | None:
        return self._streams(self._config(system))

    def check(self, where: str, system: System) -> None:
        if (self.lm is None and len(system.lms) != 1) or (self.lm is not None and self.lm not in system.lms):
            raise RecipeError(
                f"{where} distils LM {self.lm!r}, but there is {', '.join(system.lms) or 'none'}. Name one of them."
            )
        if self.reply_tokens < 1:
            raise RecipeError(f"{where} compares replies of {self.reply_tokens} tokens. Give at least 1.")
        lm = self._config(system)
        wanted = (
            (self.heard, isinstance(lm.inputs.get(self.heard), Project.Config), "enter through a Project"),
            (self.place, isinstance(lm.inputs.get(self.place), Lookup), "enter by a Lookup"),
            (self.reply, isinstance(lm.heads.get(self.reply), Linear.Config), "have a Linear head"),
        )
        for stream, there, must in wanted:
            if not there:
                raise RecipeError(f"{where} needs stream {stream!r} of the LM to {must}. Name one that does.")
        specs = system.specs
        if self.typed not in specs or specs[self.typed].kind != specs[self.place].kind:
            raise RecipeError(
                f"{where} needs a stream {self.typed!r} of the same codes as {self.place!r}. Give the recipe one."
            )

    def _streams(self, lm: SpeechLM.Config) -> tuple[str, ...]:
        """What is heard, the same as text, and the text around it; of what else the LM hears, there is nothing."""
        around = (s for s in lm.layout.streams if isinstance(lm.inputs.get(s), Lookup) and s != self.reply)
        return (self.typed, self.heard, *around)

    def _config(self, system: System) -> SpeechLM.Config:
        return system.lms[self.lm or next(iter(system.lms))]

    def prepare(self, parts: Parts, data: StageData, seed: int) -> Prepared:
        lm = parts.lms[self.lm or next(iter(parts.lms))]
        assert isinstance(lm, SpeechLM)
        streams = self._streams(lm.config)

        def batches(recorded: Recorded, seed: int) -> StreamBatches:
            return StreamBatches(
                recorded, streams, max_tokens=self.max_tokens, seed=seed, rank=rank(), world=world_size()
            )

        objective = TextDistillation(
            lm,
            heard=self.heard,
            typed=self.typed,
            place=self.place,
            reply=self.reply,
            reply_tokens=self.reply_tokens,
            weights={"kl": 1.0, "hidden": self.hidden},
        )
        validation = if_any(data.dev, lambda dev: first_batches(batches(dev, 0)))
        return Prepared(objective, batches(data.train, seed), validation)
