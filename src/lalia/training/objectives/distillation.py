"""What a speech encoder hears, taught to the first codebook of a codec, so that it carries the words."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.encoders import SpeechEncoder
from lalia.errors import ConfigError

__all__ = ["Distillation"]


class Distillation(Configurable):
    """The distance of projected codes from the features of a frozen teacher, which is not saved.

    :param teacher: the encoder, and which of its layers.
    :param along: ``frames``: one minus the cosine at each frame (Mimi, arXiv:2410.00037 §3.3.3). ``dims``: the negative
        logarithm of the sigmoid of the cosine over time, for each dimension (SpeechTokenizer, arXiv:2308.16692 eq. 1).
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        teacher: SpeechEncoder.Config
        _: KW_ONLY
        along: Literal["frames", "dims"] = "frames"

    def __init__(self, config: Config, *, dim: int, frame_rate: float, device: torch.device) -> None:
        """
        :param dim: of what is taught, and its ``frame_rate`` in Hz.
        """
        self.config = config
        self.teacher: SpeechEncoder = config.teacher.build().to(device)
        self.rate, own = frame_rate, self.teacher.spec.frame_rate
        assert own is not None
        self.pool = round(own / frame_rate) if own > frame_rate else 1
        if own > frame_rate and abs(self.pool * frame_rate - own) > 1e-3 * own:
            raise ConfigError(
                f"The teacher has {own:g} frames a second, the codec {frame_rate:g}. Make one a multiple of the other, "
                "or let the codec have more."
            )
        self.project = nn.Linear(dim, self.teacher.dim).to(device)

    @torch.no_grad()
    def target(self, audio: Audio, frames: int) -> Tensor:
        """The teacher's features at the rate of the codec [B, frames, D].

        Where they are slower, averages of twice as many as fall into a frame, half of which lie beyond its edges.
        """
        heard = self.teacher.encode(audio).values.transpose(1, 2)
        if self.pool > 1:
            beyond = self.pool // 2
            heard = F.avg_pool1d(F.pad(heard, (beyond, self.pool - beyond), mode="replicate"), 2 * self.pool, self.pool)
        if heard.shape[2] != frames:
            # Another rate, or a frame more or less at the end.
            close = abs(heard.shape[2] - frames) <= 1
            fit = F.pad(heard, (0, 1), mode="replicate")[:, :, :frames] if close else None
            heard = F.interpolate(heard, size=frames, mode="linear") if fit is None or fit.shape[2] < frames else fit
        return heard.transpose(1, 2)

    def loss(self, first: Tensor, audio: Audio) -> Tensor:
        """The loss, summed over rows.

        :param first: what the first codebook says, [B, T, D].
        :param audio: what it says it of, [B, 1, N].
        """
        said, target = self.project(first).float(), self.target(audio, first.shape[1]).float()
        if self.config.along == "frames":
            return (1 - F.cosine_similarity(said, target, dim=2)).mean(1).sum()
        return -F.logsigmoid(F.cosine_similarity(said, target, dim=1)).mean(1).sum()
