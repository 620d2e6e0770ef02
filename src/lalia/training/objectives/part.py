"""Training one part of a vocoder by the losses that it has itself."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lalia.audio import Audio
from lalia.streams import Streams
from lalia.vocoders import Chain, LearnsAlone, Vocoder

__all__ = ["PartLoss"]


class PartLoss:
    """The sum of a part's own losses (a mel predictor, a flow); see ``Objective``.

    A batch is ``{"streams": Streams, "audio": Audio, "speaker": Tensor [B] | None}``, the audio at the part's rate.
    What the parts before it would make is taken from the recording (teacher forcing); without ``audio``, the streams
    are all there.

    :param vocoder: the whole, of which the other parts are left as they are.
    :param part: which is trained.
    """

    players = ("model",)

    def __init__(self, vocoder: Vocoder, part: nn.Module) -> None:
        assert isinstance(part, LearnsAlone)
        self.part: LearnsAlone = part
        self._module = part
        # All that analyse, the part included: what it makes is its own target.
        self._stages = vocoder.stages_until(part) if isinstance(vocoder, Chain) else []
        self.step = 0
        self.weights: Mapping[str, float] = dict.fromkeys(part.terms, 1.0)

    def modules(self, player: str) -> list[nn.Module]:
        return [self._module]

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        return self.part.counts(self._known(batch), batch.get("audio"))

    def losses(self, player: str, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        voiced = self.part.num_speakers > 1
        return self.part.losses(self._known(batch), batch.get("audio"), batch.get("speaker") if voiced else None)

    def _known(self, batch: Mapping[str, Any]) -> Streams:
        known: Streams = dict(batch["streams"])
        audio = batch.get("audio")
        if audio is None:
            return known
        assert isinstance(audio, Audio)
        for stage in self._stages:
            known |= stage.analyse(audio)
        return known
