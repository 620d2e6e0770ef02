"""What tokenizers over a speech encoder share: which encoder, and the smallest one in its place."""

from collections.abc import Mapping
from typing import Any, ClassVar

from lalia.encoders import SpeechEncoder, Windows
from lalia.errors import ConfigError

__all__ = ["OverEncoder"]


_TINY: Mapping[str, Any] = {
    "model_type": "hubert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
"""An encoder of HuBERT's shape."""


class OverEncoder:
    """Part of a configuration that has these fields, as ``SpeechEncoder`` has them."""

    owner: ClassVar[type]
    encoder: str
    layer: int | None
    pool: int
    windows: Windows
    pretrained: bool
    architecture: Mapping[str, Any] | None

    @property
    def sample_rate(self) -> int:
        """Of the sound that it reads, in Hz; a tokenizer of text has none."""
        return self.encoder_config.sample_rate

    @property
    def encoder_config(self) -> SpeechEncoder.Config:
        """What listens."""
        return SpeechEncoder.Config(
            self.encoder,
            layer=self.layer,
            pool=self.pool,
            windows=self.windows,
            pretrained=self.pretrained,
            architecture=self.architecture,
        )

    @property
    def tiny_encoder(self) -> dict[str, Any]:
        """The fields of a random encoder of HuBERT's shape: the same each time, and without meaning."""
        name = self.encoder if self.encoder.startswith("tiny-") else f"tiny-{self.encoder}"
        own = {k: v for k, v in (self.architecture or {}).items() if k in {"conv_stride", "conv_kernel"}}
        if own:
            # Its frame rate stays.
            own["conv_dim"] = [32] * len(own["conv_stride"])
        return {"encoder": name, "layer": 2, "pretrained": False, "architecture": {**_TINY, **own}}

    def build_encoder(self, ready: SpeechEncoder | None) -> SpeechEncoder:
        """What listens, built.

        :param ready: one that is built already, so that several tokenizers can share it.
        :raises ConfigError: it is another.
        """
        if ready is None:
            built: SpeechEncoder = self.encoder_config.build()
            return built
        if ready.config != self.encoder_config:
            raise ConfigError(
                f"{self.owner.__name__} needs {self.encoder_config}, not {ready.config}. "
                "Build that of config.encoder_config."
            )
        return ready
