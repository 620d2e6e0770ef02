"""Mimi, the codec of Moshi, on modules of lalia's own, which stream both ways."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from lalia.audio import Audio
from lalia.checkpoints import fetch, mimi
from lalia.config import Configurable
from lalia.errors import ConfigError, WeightsError
from lalia.nn.quantize_parts import SplitResidualVQ
from lalia.nn.seanet import SEANet
from lalia.nn.stack import StackState
from lalia.nn.transformer import Transformer
from lalia.streams import StreamSpec, TokenSequence
from lalia.tokenizers.base import Fetched, identity_of
from lalia.tokenizers.codec import Codec, CodecEncoderState, CodecSynthesizer

__all__ = ["Mimi"]

_ONLY = {
    "audio_channels": 1,
    "use_causal_conv": True,
    "pad_mode": "constant",
    "trim_right_ratio": 1.0,
    "hidden_act": "gelu",
}
"""What lalia's modules have no other value for."""


class Mimi(Fetched, Configurable, nn.Module):
    """Mimi (arXiv:2410.00037 §3.3): 24 kHz, 12.5 frames a second, 2048 codes; the first codebook is of meaning.

    What it learned is fetched, never copied into a model.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param name: a directory or a hub id: of a Mimi, or of a model that speaks with it and has it beside its weights
            (``kyutai/moshiko-pytorch-bf16``).
        :param num_codebooks: K; the first of those that there are (32).
        :param pretrained: load the weights; otherwise random ones, the same each time.
        :param architecture: the model's ``config.json`` as a mapping, where it is not that of kyutai/mimi.
        """

        name: str = "kyutai/mimi"
        _: KW_ONLY
        num_codebooks: int = 8
        pretrained: bool = True
        architecture: Mapping[str, Any] | None = None

        def __post_init__(self) -> None:
            most = self.most_codebooks
            if not 1 <= self.num_codebooks <= most:
                raise ConfigError(f"Mimi gives 1 to {most} codebooks, not {self.num_codebooks}. Set num_codebooks.")
            for name, value in _ONLY.items():
                if self._facts[name] != value:
                    raise ConfigError(f"Mimi has {name} {self._facts[name]!r}, but lalia knows only {value!r}.")

        def tiny(self) -> "Mimi.Config":
            facts = self._facts
            shape = {
                "hidden_size": 16,
                "num_filters": 2,
                "codebook_size": 16,
                "vector_quantization_hidden_dimension": 8,
                "num_quantizers": max(self.num_codebooks, 2),
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "intermediate_size": 32,
                "sliding_window": 8,
                "upsampling_ratios": tuple(facts["upsampling_ratios"]),
                "sampling_rate": facts["sampling_rate"],
            }
            name = self.name if self.name.startswith("tiny-") else f"tiny-{self.name}"
            return replace(self, name=name, pretrained=False, architecture=shape)

        @property
        def _facts(self) -> dict[str, Any]:
            given = dict(self.architecture or {})
            rope = given.get("rope_parameters") or {}
            if "rope_theta" in rope:
                given["rope_theta"] = rope["rope_theta"]
            return {name: given[name] if given.get(name) is not None else v for name, v in mimi.PUBLISHED.items()}

        @property
        def most_codebooks(self) -> int:
            """How many there are."""
            return int(self._facts["num_quantizers"])

        @property
        def codec(self) -> Codec.Config:
            """The codec that it is."""
            f = self._facts
            strides, dim = tuple(reversed(f["upsampling_ratios"])), f["hidden_size"]
            transformer = Transformer.Config(
                num_layers=f["num_hidden_layers"],
                num_heads=f["num_attention_heads"],
                num_kv_heads=f["num_key_value_heads"],
                # A configuration may say what is so anyhow.
                head_dim=None if f["head_dim"] == dim // f["num_attention_heads"] else f["head_dim"],
                dim=dim,
                ffn_dim=f["intermediate_size"],
                window=f["sliding_window"],
                norm="layer",
                norm_eps=f["norm_eps"],
                activation="gelu",
                rope_theta=f["rope_theta"],
            )
            network = SEANet(
                strides,
                f["num_filters"],
                dim,
                kernel_size=f["kernel_size"],
                last_kernel_size=f["last_kernel_size"],
                residual_kernel_size=f["residual_kernel_size"],
                num_residual=f["num_residual_layers"],
                dilation_growth=f["dilation_growth_rate"],
                compress=f["compress"],
                shortcut=f["use_conv_shortcut"],
                transformer=transformer,
            )
            rate = f["frame_rate"] or f["sampling_rate"] / (2 * network.hop)
            network = replace(network, resample=round(f["sampling_rate"] / (network.hop * rate)))
            semantic, inner = f["num_semantic_quantizers"], f["vector_quantization_hidden_dimension"]
            quantizer = SplitResidualVQ.Config(
                f["codebook_size"],
                # Those that are not used need no room.
                max(self.num_codebooks, semantic + 1),
                num_semantic=semantic,
                project=None if inner == dim else inner,
            )
            return Codec.Config(f["sampling_rate"], network, quantizer, num_codebooks=self.num_codebooks)

        def build_synthesizer(self) -> CodecSynthesizer:
            """The half that speaks, untrained and without fetching anything."""
            return self.codec.build_synthesizer()

        @property
        def spec(self) -> StreamSpec:
            """What the stream holds, known without building anything."""
            return self.codec.spec

        @property
        def sample_rate(self) -> int:
            """Of the sound that it reads, in Hz."""
            return self.codec.sample_rate

    def __init__(self, config: Config) -> None:
        """
        :raises WeightsError: the weights cannot be had, or are of another architecture.
        """
        super().__init__()
        self.config, shape = config, config.codec
        self.codec: Codec = shape.build()
        self.spec, self.sample_rate = shape.spec, shape.sample_rate
        if config.pretrained:
            folder = fetch(config.name)
            said = mimi.config(folder)
            if said is None:
                raise WeightsError(f"{config.name!r} holds no Mimi. Name kyutai/mimi, or a folder that does.")
            if not _alike(config, said):
                raise WeightsError(
                    f"{config.name!r} has another shape than was asked for. Give its config.json as architecture."
                )
            assert isinstance(shape.quantizer, SplitResidualVQ.Config)
            books = {"num_semantic": shape.quantizer.num_semantic, "num_codebooks": shape.quantizer.num_codebooks}
            try:
                tensors = {name: t.float() for name, t in mimi.tensors(folder).items()}
                self.codec.load_weights(mimi.state_dict(tensors, **books))
            except ConfigError as error:
                raise WeightsError(f"{config.name!r} cannot be loaded. {error}") from None
        self.requires_grad_(False).eval()

    @property
    def synthesizer(self) -> CodecSynthesizer:
        """The part that speaks, without copying it."""
        return self.codec.synthesizer

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the configuration and all weights."""
        return identity_of(self.config, self.codec.weights())

    def init_state(self, batch_size: int) -> CodecEncoderState:
        """An empty stream for each row."""
        return self.codec.init_state(batch_size)

    def encode(self, audio: Audio, state: CodecEncoderState | None = None, *, final: bool = False) -> TokenSequence:
        """See ``Codec.encode``."""
        return self.codec.encode(audio, state, final=final)

    def decode(self, codes: TokenSequence, state: StackState | None = None, *, final: bool = False) -> Audio:
        """See ``Codec.decode``."""
        return self.codec.decode(codes, state, final=final)

    def decoder_state(self, batch_size: int) -> StackState:
        """An empty stream of codes for each row."""
        return self.codec.decoder_state(batch_size)


def _alike(config: Mimi.Config, said: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` describes the codec that is asked for."""
    try:
        return replace(config, architecture=said).codec == config.codec
    except ConfigError:
        return False
