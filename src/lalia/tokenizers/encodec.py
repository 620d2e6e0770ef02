"""EnCodec, by Hugging Face transformers.

It reflects the edges of a recording and has an LSTM: its streams are collected until they end.
"""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.errors import ConfigError
from lalia.nn.whole import WholeState, collect, init_whole
from lalia.streaming import State
from lalia.streams import TokenSequence, pad_batch
from lalia.tokenizers.base import heard
from lalia.tokenizers.hf_codecs import HFCodec, HFCodecFacts, HFSynthesizer, known_facts

__all__ = ["EnCodec"]


class _EnCodecSynthesizer(HFSynthesizer):
    def assign(self, x: Tensor) -> Tensor:
        codes, left = [], x
        for layer in self.quantizer.layers:
            codes.append(layer.encode(left))
            left = left - layer.decode(codes[-1])
        return torch.stack(codes, dim=1)

    def speak(self, codes: Tensor) -> Tensor:
        return self.decoder(self.quantizer.decode(codes.transpose(0, 1)))[:, 0]  # type: ignore[no-any-return]

    def init_state(self, batch_size: int) -> WholeState:
        return init_whole(self.like, batch_size)

    @torch.no_grad()
    def decode(self, codes: TokenSequence, state: State | None = None, *, final: bool = False) -> Audio:
        codes = codes.to(self.like.device)
        nothing = torch.zeros(0, device=codes.values.device)
        if state is not None:
            assert isinstance(state, WholeState)
            # A stream has room for all codebooks, whichever come.
            count = codes.values.shape[1]
            padded = F.pad(codes.values, (0, 0, 0, self.num_codebooks - count))
            kept = collect(TokenSequence(padded, codes.lengths), state, final=final)
            if kept is None:
                return Audio(nothing.expand(len(codes), 1, 0), self.sample_rate, torch.zeros_like(codes.lengths))
            codes = TokenSequence(kept.values[:, :count], kept.lengths)
        rows = [self.speak(codes.row(b).values)[0] if codes.lengths[b] else nothing for b in range(len(codes))]
        samples = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return Audio(samples[:, None], self.sample_rate, codes.lengths * self.hop)


class EnCodec(HFCodec):
    """EnCodec (arXiv:2210.13438): 24 kHz, 75 frames a second, up to 32 codebooks of 1024.

    What it learned is fetched, never copied into a model.
    """

    @dataclass(frozen=True)
    class Config(HFCodecFacts, Configurable.Config):
        """
        :param name: a directory or a hub id.
        :param num_codebooks: K; 8 are 6 kbit/s.
        :param pretrained: load the weights; otherwise random ones, the same each time.
        :param architecture: the model's ``config.json`` as a mapping, where it is not that of facebook/encodec_24khz.
        """

        model_type = "encodec"

        name: str = "facebook/encodec_24khz"
        _: KW_ONLY
        num_codebooks: int = 8
        pretrained: bool = True
        architecture: Mapping[str, Any] | None = None

        def __post_init__(self) -> None:
            self.check()
            f = self.facts
            if f["audio_channels"] != 1 or f["normalize"] or f["chunk_length_s"] is not None:
                raise ConfigError(
                    f"{self.name} has {f['audio_channels']} channels or normalises chunks. Take facebook/encodec_24khz."
                )

        def tiny(self) -> Self:
            shape = {"num_filters": 2, "hidden_size": 8, "codebook_size": 16, "num_lstm_layers": 1}
            facts = self.facts | shape
            # As many codebooks as there were: their number follows from the bandwidth and the bits of a code.
            facts["target_bandwidths"] = (math.ceil(self.spec.frame_rate or 1) * 4 * self.books / 1000,)
            name = self.name if self.name.startswith("tiny-") else f"tiny-{self.name}"
            return replace(self, name=name, pretrained=False, architecture=facts)

        @property
        def facts(self) -> dict[str, Any]:
            published: dict[str, Any] = {
                "sampling_rate": 24000,
                "audio_channels": 1,
                "normalize": False,
                "chunk_length_s": None,
                "num_filters": 32,
                "hidden_size": 128,
                "upsampling_ratios": (8, 5, 4, 2),
                "codebook_size": 1024,
                "num_lstm_layers": 2,
                "target_bandwidths": (1.5, 3.0, 6.0, 12.0, 24.0),
            }
            return known_facts(published, self.architecture)

        @property
        def strides(self) -> tuple[int, ...]:
            return tuple(reversed(self.facts["upsampling_ratios"]))

        @property
        def books(self) -> int:
            f = self.facts
            bits, rate = math.ceil(math.log2(f["codebook_size"])), math.ceil(f["sampling_rate"] / self.hop)
            return round(1000 * f["target_bandwidths"][-1]) // (rate * bits)

        def fill(self, model: Any) -> None:
            for layer in model.quantizer.layers:
                layer.codebook.embed.normal_()

        def build_synthesizer(self) -> HFSynthesizer:
            """The half that speaks, untrained and without fetching anything."""
            return _EnCodecSynthesizer(self, self.model(pretrained=False)).requires_grad_(False)

    @staticmethod
    def make_synthesizer(config: Any, model: Any) -> HFSynthesizer:
        return _EnCodecSynthesizer(config, model)

    def init_state(self, batch_size: int) -> WholeState:
        """Nothing yet: a stream is collected until it ends."""
        return init_whole(torch.zeros(1, 1, 1, device=self.device), batch_size)

    @torch.no_grad()
    def encode(self, audio: Audio, state: WholeState | None = None, *, final: bool = False) -> TokenSequence:
        """See ``Codec.encode``; of a stream, everything comes at its end."""
        audio = heard(audio, self.sample_rate, streaming=state is not None)
        sound, lengths = audio.samples.to(self.device), audio.lengths.to(self.device)
        books = self.config.used
        if state is not None:
            kept = collect(TokenSequence(sound.transpose(1, 2), lengths), state, final=final)
            if kept is None:
                none = torch.zeros(len(audio), books, 0, dtype=torch.long)
                return TokenSequence(none, torch.zeros(len(audio), dtype=torch.long))
            sound, lengths = kept.values.transpose(1, 2), kept.lengths
        rows = []
        for b, n in enumerate(lengths.tolist()):
            nothing = torch.zeros(1, books, 0, dtype=torch.long)
            codes = self.quantize(sound[b : b + 1, :, :n]).cpu() if n else nothing
            rows.append(TokenSequence(codes, torch.tensor([codes.shape[2]])))
        return pad_batch(rows)
