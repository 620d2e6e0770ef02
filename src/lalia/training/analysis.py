"""How the features that a vocoder reads are computed of the sound that it is trained on."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from lalia.audio import Audio
from lalia.config import from_dict
from lalia.errors import DataError
from lalia.tokenizers import Mel
from lalia.training.recordings import Recorded
from lalia.vocoders import Chain, MelVocoder, Stage, Vocoder

__all__ = ["Analysis", "analysis_of"]


@dataclass(frozen=True)
class Analysis:
    """How a stream of features is computed of sound, so that the shards need not have it.

    :param frames: samples [N] to features [N // hop, D].
    :param frame_rate: in Hz.
    :param reach: frames on either side that a frame depends on; each segment is analysed with so many around it.
    """

    frames: Callable[[Tensor], Tensor]
    frame_rate: float
    reach: int = 0


def analysis_of(
    vocoder: MelVocoder, whole: Vocoder | None, recorded: Recorded, mel: Mel.Config | None = None
) -> Analysis | None:
    """What computes the stream that a vocoder reads; None where only the shards have it.

    :param whole: the chain that it is the last part of, or the vocoder itself.
    :param mel: the spectrum, where it is not that of the shards or of the chain.
    :raises DataError: the spectrum is another than the vocoder reads, or there is none.
    """
    stream, info = vocoder.stream, recorded.tokens.info.get(vocoder.stream)
    if mel is None and info is not None and info.tokenizer.get("type") == "lalia.tokenizers.Mel":
        mel = from_dict(dict(info.tokenizer))
    if mel is not None:
        if mel.spec != vocoder.spec or mel.sample_rate != vocoder.sample_rate:
            raise DataError(
                f"The vocoder reads {vocoder.spec} of sound at {vocoder.sample_rate} Hz, but the mel spectra to train "
                f"it on are {mel.spec} at {mel.sample_rate} Hz. Give TrainVocoder those of the recipe."
            )
        # In the scale of the stream, whichever that is: the vocoder undoes it.
        scale = {n: t.cpu() for n, t in vocoder.standard.weights().items()}
        tokenizer: Mel = replace(mel, normalize=bool(scale)).build()
        tokenizer.load_weights(scale)
        return Analysis(tokenizer, mel.sample_rate / mel.hop, tokenizer.field.left)
    for stage in whole.stages_until(vocoder) if isinstance(whole, Chain) else ():
        if stream in stage.makes:

            def analyse(samples: Tensor, stage: Stage = stage) -> Tensor:
                return stage.analyse(Audio(samples, stage.sample_rate))[stream].values[0].cpu()

            return Analysis(analyse, vocoder.sample_rate / vocoder.hop)
    if info is None:
        raise DataError(f"The shards have no stream {stream!r}, and no part makes it. Give TrainVocoder its mel.")
    return None
