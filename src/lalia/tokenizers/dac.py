"""DAC, by Hugging Face transformers.

A network of finite reach: it streams exactly, late by what it sees of the future.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.nn.blocks import run_blocks
from lalia.nn.fir import Field, FirState, init_fir
from lalia.nn.snac import reach_of
from lalia.streaming import State
from lalia.streams import TokenSequence
from lalia.tokenizers.fir_codec import FirEncoder, block_of
from lalia.tokenizers.hf_codecs import HFCodec, HFCodecFacts, HFSynthesizer, known_facts

__all__ = ["DAC"]


class _DACSynthesizer(HFSynthesizer):
    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        reach = reach_of(config.strides)
        self.field, self.block = Field(reach, reach, self.hop), block_of(self.sample_rate / self.hop)

    def assign(self, x: Tensor) -> Tensor:
        return self.quantizer(x)[1]  # type: ignore[no-any-return]

    def speak(self, codes: Tensor) -> Tensor:
        made: Tensor = self.decoder(self.quantizer.from_codes(codes)[0])[:, 0]
        # An odd stride makes a few samples too few at the end.
        return F.pad(made, (0, codes.shape[2] * self.hop - made.shape[1]))

    def init_state(self, batch_size: int) -> FirState:
        return init_fir(self.field, self.like, batch_size)

    @torch.no_grad()
    def decode(self, codes: TokenSequence, state: State | None = None, *, final: bool = False) -> Audio:
        assert state is None or isinstance(state, FirState)
        codes = codes.to(self.like.device)
        count = codes.values.shape[1]
        # A stream has room for all codebooks, whichever come.
        frames = F.pad(codes.values, (0, 0, 0, self.num_codebooks - count)).transpose(1, 2)
        samples, lengths = run_blocks(
            lambda x, _: self.speak(x[..., :count].transpose(1, 2)),
            self.field,
            frames,
            codes.lengths,
            state,
            final=final,
            block=self.block,
        )
        return Audio(samples[:, None], self.sample_rate, lengths)


_PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "descript/dac_16khz": {"sampling_rate": 16000, "n_codebooks": 12, "downsampling_ratios": (2, 4, 5, 8)},
    "descript/dac_24khz": {"sampling_rate": 24000, "n_codebooks": 32, "downsampling_ratios": (2, 4, 5, 8)},
    "descript/dac_44khz": {"sampling_rate": 44100, "n_codebooks": 9, "downsampling_ratios": (2, 4, 8, 8)},
}


class DAC(HFCodec, FirEncoder):
    """Descript's codec (Improved RVQGAN, arXiv:2306.06546): 16 kHz, 50 frames a second, 12 codebooks of 1024.

    Other rates are ``descript/dac_24khz`` and ``descript/dac_44khz``. What it learned is fetched, never copied into a
    model.
    """

    @dataclass(frozen=True)
    class Config(HFCodecFacts, Configurable.Config):
        """
        :param name: a directory or a hub id.
        :param num_codebooks: K; the first of those that there are, all when None.
        :param pretrained: load the weights; otherwise random ones, the same each time.
        :param architecture: the model's ``config.json`` as a mapping, where it is none of the published ones.
        """

        model_type = "dac"

        name: str = "descript/dac_16khz"
        _: KW_ONLY
        num_codebooks: int | None = None
        pretrained: bool = True
        architecture: Mapping[str, Any] | None = None

        def __post_init__(self) -> None:
            self.check()

        def tiny(self) -> Self:
            shape = {"encoder_hidden_size": 2, "decoder_hidden_size": 32, "codebook_size": 16, "codebook_dim": 4}
            name = self.name if self.name.startswith("tiny-") else f"tiny-{self.name}"
            return replace(self, name=name, pretrained=False, architecture=self.facts | shape)

        @property
        def facts(self) -> dict[str, Any]:
            common = {"encoder_hidden_size": 64, "decoder_hidden_size": 1536, "codebook_size": 1024, "codebook_dim": 8}
            return known_facts(
                common | dict(_PUBLISHED.get(self.name, _PUBLISHED["descript/dac_16khz"])), self.architecture
            )

        @property
        def strides(self) -> tuple[int, ...]:
            return tuple(self.facts["downsampling_ratios"])

        @property
        def books(self) -> int:
            books: int = self.facts["n_codebooks"]
            return books

        def build_synthesizer(self) -> HFSynthesizer:
            """The half that speaks, untrained and without fetching anything."""
            return _DACSynthesizer(self, self.model(pretrained=False)).requires_grad_(False)

    def __init__(self, config: Config) -> None:
        """
        :raises WeightsError: the weights cannot be had, or are of another architecture.
        """
        super().__init__(config)
        reach = reach_of(config.strides)
        self.field = Field(reach, reach, 1)

    @staticmethod
    def make_synthesizer(config: Any, model: Any) -> HFSynthesizer:
        return _DACSynthesizer(config, model)
