"""The task of training a codec on recordings alone."""

from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import islice

import torch

from lalia.config import Configuration
from lalia.data import Manifest
from lalia.errors import DataError
from lalia.tokenizers import Codec
from lalia.training.distributed import rank, world_size
from lalia.training.objectives.codec_gan import CodecGAN
from lalia.training.sound_batches import SoundBatches
from lalia.training.tasks import Prepared

__all__ = ["TrainCodec"]

_HELD_OUT_BATCHES = 4

_FIT_SEGMENTS = 64
"""What the codebooks start from."""


@dataclass(frozen=True)
class TrainCodec(Configuration):
    """Adversarial training of a codec on segments of recordings.

    :param seconds: length of a segment.
    :param batch_size: segments per global batch.
    """

    gan: CodecGAN.Config = field(default_factory=CodecGAN.Config)
    _: KW_ONLY
    seconds: float = 1.0
    batch_size: int = 16
    micro_batch_size: int | None = None

    def tiny(self) -> "TrainCodec":
        return replace(self, gan=self.gan.tiny(), seconds=0.5, batch_size=4, micro_batch_size=None)

    def prepare(
        self, codec: Codec, train: Manifest, dev: Manifest | None, seed: int, *, begun: bool = False
    ) -> Prepared:
        """Objective and batches; the codebooks of the codec are started from the recordings.

        :param begun: the codec is trained already, so that its codebooks stay.
        :raises DataError: no recording is long enough.
        """
        batches = self._batches(codec, train, seed)
        with torch.no_grad():
            samples = batches.sample(min(_FIT_SEGMENTS, 4 * self.batch_size))["audio"].samples[:, 0]
            if len(samples) and not begun:
                frames = [codec.frames(part.to(next(codec.parameters()))) for part in samples.split(self.batch_size)]
                codec.quantizer.fit(torch.cat(frames), seed=seed)
        validation = None
        if dev is not None and len(dev):
            try:
                held = self._batches(codec, dev, 0)
            except DataError:  # too little to hold out
                held = None
            if held is not None:
                validation = [micro for batch in islice(held, _HELD_OUT_BATCHES) for micro in batch]
        return Prepared(self.gan.build(codec), batches, validation or None)

    def _batches(self, codec: Codec, manifest: Manifest, seed: int) -> SoundBatches:
        return SoundBatches(
            manifest,
            sample_rate=codec.sample_rate,
            hop=codec.hop,
            frames=max(round(self.seconds * codec.sample_rate / codec.hop), 1),
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            seed=seed,
            rank=rank(),
            world=world_size(),
        )
