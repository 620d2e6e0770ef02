"""What EnCodec and DAC of Hugging Face transformers have in common.

``Codec`` and ``Mimi`` are for real time; these are for what was made with them.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.checkpoints import fetch
from lalia.checkpoints.quiet import quiet
from lalia.config import Configurable
from lalia.errors import ConfigError, WeightsError
from lalia.streaming import State
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.tokenizers.base import Fetched, identity_of

__all__ = ["HFCodec", "HFCodecFacts", "HFSynthesizer", "known_facts"]


_OURS = ("model_type", "architectures", "dtype", "torch_dtype", "transformers_version")
"""What a ``config.json`` says of itself."""


class HFCodecFacts:
    """What the configurations of both have.

    ``model_type`` is the name of transformers for the codec.
    """

    model_type: ClassVar[str]
    name: str
    num_codebooks: int | None
    pretrained: bool
    architecture: Mapping[str, Any] | None

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the codec's ``config.json`` says, where lalia has to know it."""

    @property
    @abstractmethod
    def books(self) -> int:
        """How many codebooks there are."""

    @property
    @abstractmethod
    def strides(self) -> tuple[int, ...]:
        """Of the encoder, in order."""

    @property
    def used(self) -> int:
        """K, of the codes."""
        return self.books if self.num_codebooks is None else self.num_codebooks

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return math.prod(self.strides)

    @property
    def spec(self) -> StreamSpec:
        """What the stream holds, known without building anything."""
        f = self.facts
        return StreamSpec(kind=Discrete(f["codebook_size"], self.used), frame_rate=f["sampling_rate"] / self.hop)

    @property
    def sample_rate(self) -> int:
        """Of the sound that it reads, in Hz."""
        rate: int = self.facts["sampling_rate"]
        return rate

    def check(self) -> None:
        """:raises ConfigError: it asks for codebooks that there are not."""
        if not 1 <= self.used <= self.books:
            raise ConfigError(
                f"{self.name} gives 1 to {self.books} codebooks, not {self.num_codebooks}. Set num_codebooks."
            )

    def model(self, pretrained: bool) -> Any:
        """The model of transformers; without weights one of random ones, the same each time.

        :raises WeightsError: the weights cannot be had, or are of another architecture.
        """
        from transformers import AutoConfig, AutoModel

        if not pretrained:
            said = {k: v for k, v in (self.architecture or {}).items() if k not in _OURS and not k.startswith("_")}
            given = said | self.facts
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                made = AutoModel.from_config(AutoConfig.for_model(self.model_type, **given))
                self.fill(made)
            return made.eval()
        path = fetch(self.name)
        try:
            with quiet():
                made, info = AutoModel.from_pretrained(
                    path, use_safetensors=True, dtype=torch.float32, output_loading_info=True
                )
        except Exception as error:  # noqa: BLE001  what a damaged checkpoint can raise is not part of any interface
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise WeightsError(f"{self.name!r} cannot be loaded ({reason}). Fetch it again or name another.") from None
        if info["missing_keys"]:
            raise WeightsError(f"{self.name!r} lacks the weights {min(info['missing_keys'])!r}. Fetch it again.")
        said = made.config
        for name, value in self.facts.items():
            got = getattr(said, name, None)
            if (tuple(got) if isinstance(got, list | tuple) else got) != value:
                raise WeightsError(
                    f"{self.name!r} has {name} {got!r}, not {value!r}. Give its config.json as architecture."
                )
        return made.eval()

    def fill(self, model: Any) -> None:
        """Draw what transformers leaves empty in a model of random weights."""


class HFCodec(Fetched, Configurable, nn.Module):
    """What both have: codes of whole recordings, and a part that speaks."""

    config: Any
    synthesizer: "HFSynthesizer"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.spec, self.sample_rate, self.hop = config.spec, config.sample_rate, config.hop
        model = config.model(config.pretrained)
        self.encoder = model.encoder
        self.synthesizer = self.make_synthesizer(config, model)
        self.requires_grad_(False).eval()

    @staticmethod
    @abstractmethod
    def make_synthesizer(config: Any, model: Any) -> "HFSynthesizer":
        """The part of a model that speaks."""

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the configuration and all weights."""
        return identity_of(self.config, self.state_dict())

    def quantize(self, samples: Tensor) -> Tensor:
        """Samples [R, 1, N] to codes [R, K, T]."""
        codes = self.synthesizer.assign(self.encoder(samples))
        return codes[:, : self.config.used]

    def decode(self, codes: TokenSequence, state: State | None = None, *, final: bool = False) -> Audio:
        """Codes [B, k, T] of the first k codebooks to audio [B, 1, T * hop]; see ``Codec.decode``."""
        return self.synthesizer.decode(codes, state, final=final)

    def decoder_state(self, batch_size: int) -> State:
        """An empty stream of codes for each row."""
        return self.synthesizer.init_state(batch_size)

    @property
    def device(self) -> torch.device:
        return next(self.encoder.parameters()).device


class HFSynthesizer(nn.Module):
    """Quantiser and decoder of a model of transformers."""

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__()
        self.quantizer, self.decoder = model.quantizer, model.decoder
        self.num_codebooks, self.sample_rate, self.hop = config.books, config.sample_rate, config.hop

    @abstractmethod
    def assign(self, x: Tensor) -> Tensor:
        """Frames [R, D, T] to codes [R, K, T]."""

    @abstractmethod
    def speak(self, codes: Tensor) -> Tensor:
        """Codes [R, k, T] to samples [R, T * hop]."""

    @abstractmethod
    def init_state(self, batch_size: int) -> Any: ...

    @abstractmethod
    def decode(self, codes: TokenSequence, state: State | None = None, *, final: bool = False) -> Audio: ...

    @property
    def like(self) -> Tensor:
        return torch.zeros(1, 1, self.num_codebooks, dtype=torch.long, device=next(self.parameters()).device)


def known_facts(published: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is given of what has to be known; tuples for lists."""
    facts = {name: (given or {}).get(name, value) for name, value in published.items()}
    return {name: tuple(v) if isinstance(v, list | tuple) else v for name, v in facts.items()}
