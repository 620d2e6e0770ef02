"""Whether generated speech is in the voice that it should be in: the cosine of speaker embeddings.

SIM-o compares it with the original recording of the voice, SIM-r with that recording as the system itself resynthesizes
it, so that what its tokens lose is not held against its language model (VALL-E, arXiv:2301.02111; Voicebox,
arXiv:2306.15687). SIM-r is the higher, and says less to who listens.

A figure depends on the encoder. Those published as SIM are mostly by WavLM-large with an ECAPA-TDNN on top, from
UniSpeech, which is a pickle and not here; no other encoder's compare with them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lalia.audio import Audio, AudioLike
from lalia.checkpoints import fetch
from lalia.checkpoints.quiet import quiet
from lalia.errors import AudioError, ConfigError, DataError, WeightsError
from lalia.evaluation.generation.recordings import each
from lalia.evaluation.results import tool
from lalia.evaluation.statistics import mean
from lalia.files import sha256

__all__ = ["SpeakerEncoder", "WavLMSpeaker", "evaluate_similarity"]

_SAMPLE_RATE = 16_000
_SHORTEST = 0.2
"""Seconds; of less, the layers that look at several frames at once leave nothing."""

_NAMES = {"original": "sim_o", "resynthesis": "sim_r"}


class SpeakerEncoder(Protocol):
    """Tells voices apart. ``name`` and ``version`` go into every result that it had a part in."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    def __call__(self, recordings: Sequence[Audio], /) -> list[Tensor]:
        """The embedding [D] of the voice in row 0 of each.

        :raises AudioError: there is no speech in a recording.
        """
        ...


class WavLMSpeaker:
    """Embeddings by the x-vectors of a WavLM for speaker verification, such as ``microsoft/wavlm-base-plus-sv``.

    On the CPU in float32, one recording at a time; it is read at the first use.

    :param weights: the folder or hub id of a ``WavLMForXVector``.
    :raises WeightsError: the weights cannot be had.
    """

    def __init__(self, weights: str | Path) -> None:
        import transformers

        self.name, self._folder = Path(weights).name, fetch(weights)
        files = sorted(self._folder.glob("*.safetensors"))
        hashes = "+".join(sha256(file)[:12] for file in files)
        self.version = f"weights {hashes}, transformers {transformers.__version__}"
        self._parts: tuple[Any, Any] | None = None

    @torch.inference_mode()
    def __call__(self, recordings: Sequence[Audio]) -> list[Tensor]:
        """The embedding [D] of row 0 of each, mixed to mono, of length 1.

        :raises AudioError: a recording is too short.
        """
        model, extractor = self._load()
        found = []
        for audio in recordings:
            heard = audio.row(0).mono().to(_SAMPLE_RATE)
            if heard.seconds < _SHORTEST:
                raise AudioError(f"The recording lasts {heard.seconds:.2f} s. Give {_SHORTEST} s or more.")
            samples = heard.samples[0, 0].detach().float().cpu().numpy()
            values = extractor(samples, sampling_rate=_SAMPLE_RATE, return_tensors="pt").input_values
            found.append(normalize(model(values).embeddings[0], dim=0))
        return found

    def _load(self) -> tuple[Any, Any]:
        if self._parts is None:
            from transformers import AutoFeatureExtractor, WavLMForXVector

            try:
                with quiet():
                    model, loaded = WavLMForXVector.from_pretrained(
                        self._folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
                    )
                    extractor = AutoFeatureExtractor.from_pretrained(self._folder)
                # The loss that it was trained with has classes, which are no part of it; the rest would be random.
                missing = [name for name in loaded["missing_keys"] if not name.startswith("objective.")]
                reason = f"its weights lack {min(missing)}" if missing else None
            except (OSError, ValueError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            if reason is not None:
                raise WeightsError(f"{self.name} is no WavLMForXVector that can be read ({reason}). Name another.")
            self._parts = model.eval(), extractor
        return self._parts


def evaluate_similarity(
    generated: Mapping[str, AudioLike],
    references: Mapping[str, AudioLike],
    encoder: SpeakerEncoder,
    *,
    against: Literal["original", "resynthesis"] = "original",
    seed: int = 0,
) -> dict[str, Any]:
    """How alike the voices of generated recordings and of their references are, by id.

    :param references: recordings of the voices, one for each id; ids may share one.
    :param against: what the references are: recordings, or resyntheses of them by the same system.
    :param seed: of the bootstrap over recordings.
    :returns: ``asked``, ``answered``, ``failed``; ``summary``: ``sim_o`` or ``sim_r``, and ``others``, the same beside
        the references of all other ids: what a voice that follows nobody has, where most are of other people;
        ``items``; ``failures``.
    :raises DataError: an id has no reference.
    """
    if against not in _NAMES:
        raise ConfigError(f"There are no references of the kind {against!r}. Choose original or resynthesis.")
    if alone := sorted(set(generated) - set(references)):
        raise DataError(f"The recording {alone[0]!r} has no reference. Give one for each id.")

    def embed(audio: Audio) -> Tensor:
        return normalize(encoder([audio])[0].double(), dim=0)

    voices, failures = each(generated, embed)
    asked, failed = each({key: references[key] for key in voices}, embed)
    failures += [{"id": f["id"], "reason": f"Its reference: {f['reason']}"} for f in failed]
    ids = sorted(asked)
    cosines = (
        torch.stack([voices[i] for i in ids]) @ torch.stack([asked[i] for i in ids]).T if ids else torch.zeros(0, 0)
    )
    items: list[dict[str, Any]] = []
    for n, key in enumerate(ids):
        rest = torch.cat([cosines[n, :n], cosines[n, n + 1 :]])
        items.append({"id": key, "similarity": float(cosines[n, n]), "others": float(rest.mean())})
    beside = [item["others"] for item in items] if len(items) > 1 else []
    return {
        "asked": len(generated),
        "answered": len(items),
        "failed": len(failures),
        "settings": {"encoder": tool(encoder), "against": against},
        "summary": {
            _NAMES[against]: mean([item["similarity"] for item in items], seed=seed).to_dict(),
            "others": mean(beside, seed=seed).to_dict(),
        },
        "items": items,
        "failures": failures,
    }
