"""SNAC, the multi-scale codec of Mini-Omni, on modules of lalia's own."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.checkpoints import fetch, snac
from lalia.checkpoints.tensors import read_config, read_tensors
from lalia.config import Configurable
from lalia.errors import ConfigError, WeightsError
from lalia.nn.blocks import run_blocks
from lalia.nn.fir import Field, FirState, init_fir
from lalia.nn.multi_scale import MultiScaleVQ
from lalia.nn.snac import SNACDecoder, SNACEncoder, SNACNet, frame_noise, reach_of
from lalia.streaming import State
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.tokenizers.base import Fetched, identity_of, load_all
from lalia.tokenizers.fir_codec import FirEncoder, block_of
from lalia.tokenizers.hf_codecs import known_facts

__all__ = ["SNAC", "SNACState", "SNACSynthesizer"]

_PUBLISHED: Mapping[str, Any] = {
    "sampling_rate": 24000,
    "encoder_dim": 48,
    "encoder_rates": (2, 4, 8, 8),
    "latent_dim": None,
    "decoder_dim": 1024,
    "decoder_rates": (8, 8, 4, 2),
    "attn_window_size": None,
    "codebook_size": 4096,
    "codebook_dim": 8,
    "vq_strides": (4, 2, 1),
    "noise": True,
    "depthwise": True,
}
"""hubertsiuzdak/snac_24khz."""


class SNAC(Fetched, FirEncoder, Configurable, nn.Module):
    """SNAC (Siuzdak 2024, arXiv:2410.14411): 24 kHz, 7 codes of 4096 in each of 11.7 frames a second.

    Its codebooks have three rates. A frame here is one code of the slowest with the 2 and the 4 of the others that lie
    within it, in the order of time, each before the finer ones within its span (Mini-Omni, arXiv:2408.16725 §3.2).

    It is not causal: a stream gives what the whole gives, three frames late. Its decoder adds noise, which here is
    drawn by ``seed`` and by the place of the frame in its stream, so that the same codes make the same sound.

    What it learned is fetched, never copied into a model.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param name: a directory or a hub id.
        :param seed: of the decoder's noise.
        :param pretrained: load the weights; otherwise random ones, the same each time.
        :param architecture: the model's ``config.json`` as a mapping, where it is not that of the 24 kHz model.
        """

        name: str = "hubertsiuzdak/snac_24khz"
        _: KW_ONLY
        seed: int = 0
        pretrained: bool = True
        architecture: Mapping[str, Any] | None = None

        def __post_init__(self) -> None:
            f = self.facts
            if f["attn_window_size"] is not None:
                raise ConfigError(
                    f"{self.name} has attention over {f['attn_window_size']} frames, which lalia's SNAC has not. "
                    "Take hubertsiuzdak/snac_24khz."
                )
            if f["decoder_rates"] != tuple(reversed(f["encoder_rates"])) or f["latent_dim"] not in (None, self.net.dim):
                raise ConfigError(
                    f"{self.name} has decoder_rates {f['decoder_rates']} and latent_dim {f['latent_dim']}, which do "
                    f"not mirror its encoder. Give {tuple(reversed(f['encoder_rates']))} and {self.net.dim}."
                )
            if not 0 <= self.seed < 1 << 31:
                raise ConfigError(f"SNAC has seed {self.seed}. Give 0 to {(1 << 31) - 1}.")

        def tiny(self) -> "SNAC.Config":
            shape = {"encoder_dim": 2, "decoder_dim": 32, "codebook_size": 16, "codebook_dim": 4, "latent_dim": None}
            name = self.name if self.name.startswith("tiny-") else f"tiny-{self.name}"
            return replace(self, name=name, pretrained=False, architecture=self.facts | shape)

        @property
        def facts(self) -> dict[str, Any]:
            """What the model's ``config.json`` says, where lalia has to know it."""
            return known_facts(_PUBLISHED, self.architecture)

        @property
        def net(self) -> SNACNet:
            """The shape of its convolutions."""
            f = self.facts
            more = {"depthwise": f["depthwise"], "noise": f["noise"]}
            return SNACNet(f["encoder_rates"], f["encoder_dim"], f["decoder_dim"], **more)

        @property
        def hop(self) -> int:
            """Samples of a frame of codes."""
            return int(self.net.hop * self.facts["vq_strides"][0])

        @property
        def sample_rate(self) -> int:
            """Of the sound that it reads, in Hz."""
            return int(self.facts["sampling_rate"])

        @property
        def spec(self) -> StreamSpec:
            """What the stream holds, known without building anything."""
            strides = self.facts["vq_strides"]
            kind = Discrete(self.facts["codebook_size"], sum(strides[0] // stride for stride in strides))
            return StreamSpec(kind=kind, frame_rate=self.sample_rate / self.hop)

        def build_synthesizer(self) -> "SNACSynthesizer":
            """The half that speaks, untrained and without fetching anything."""
            return replace(self, pretrained=False).build().synthesizer  # type: ignore[no-any-return]

    def __init__(self, config: Config) -> None:
        """
        :raises WeightsError: the weights cannot be had, or are of another architecture.
        """
        super().__init__()
        self.config = config
        self.spec, self.sample_rate, self.hop = config.spec, config.sample_rate, config.hop
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoder = SNACEncoder(config.net)
            self.synthesizer = SNACSynthesizer(config)
        field = self.synthesizer.field
        self.field = Field(field.left, field.right, 1)
        if config.pretrained:
            self._load()
        self.requires_grad_(False).eval()

    def _load(self) -> None:
        name = self.config.name
        try:
            folder = fetch(name)
        except WeightsError as error:
            raise WeightsError(
                f"{error} SNAC is published as a pickle, which is never opened: give a folder with its config.json and "
                "its tensors, under their own names, as model.safetensors."
            ) from None
        if known_facts(_PUBLISHED, read_config(folder)) != self.config.facts:
            raise WeightsError(f"{name!r} has another shape than was asked for. Give its config.json as architecture.")
        try:
            load_all(self, snac.state_dict(read_tensors(folder)))
        except ConfigError as error:
            raise WeightsError(f"{name!r} cannot be loaded. {error}") from None

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the configuration and all weights."""
        return identity_of(self.config, self.state_dict())

    @property
    def device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    def quantize(self, samples: Tensor) -> Tensor:
        return self.synthesizer.quantizer.encode(self.encoder(samples).transpose(1, 2))

    def decode(self, codes: TokenSequence, state: State | None = None, *, final: bool = False) -> Audio:
        """Codes [B, k, T], the first k of each frame, to audio [B, 1, T * hop]; see ``Codec.decode``."""
        return self.synthesizer.decode(codes, state, final=final)

    def decoder_state(self, batch_size: int) -> "SNACState":
        """An empty stream of codes for each row."""
        return self.synthesizer.init_state(batch_size)


@dataclass
class SNACState(State):
    """``frames``: codes that are still needed, each with its place in the stream; ``count`` [B] that came."""

    frames: FirState
    count: Tensor


class SNACSynthesizer(nn.Module):
    """The half of SNAC that speaks: codes to audio.

    :param num_codebooks: codes of a frame, most that it takes.
    """

    def __init__(self, config: SNAC.Config) -> None:
        super().__init__()
        f, net = config.facts, config.net
        self.quantizer = MultiScaleVQ(f["vq_strides"], f["codebook_size"], f["codebook_dim"], net.dim)
        self.decoder = SNACDecoder(net)
        self.num_codebooks, self.sample_rate, self.hop = len(self.quantizer.slots), config.sample_rate, config.hop
        fine = f["vq_strides"][0]
        reach = -(-reach_of(net.strides) // fine)
        self.field, self.block = Field(reach, reach, self.hop), block_of(self.sample_rate / self.hop)
        self.seed, self._rates = config.seed, [fine * rate for rate in net.noise_rates]

    def init_state(self, batch_size: int) -> SNACState:
        """An empty stream of codes for each row."""
        device = self.quantizer.tables.device
        like = torch.zeros(1, 1, self.num_codebooks + 1, dtype=torch.long, device=device)
        count = torch.zeros(batch_size, dtype=torch.long, device=device)
        return SNACState(init_fir(self.field, like, batch_size), count)

    @torch.no_grad()
    def decode(self, codes: TokenSequence, state: State | None = None, *, final: bool = False) -> Audio:
        """See ``SNAC.decode``."""
        assert state is None or isinstance(state, SNACState)
        codes = codes.to(self.quantizer.tables.device)
        books, count = codes.values.shape[1:]
        places = torch.arange(count, device=codes.values.device).expand(len(codes), -1)
        if state is not None:
            places = places + state.count[:, None]
            state.count = torch.zeros_like(state.count) if final else state.count + codes.lengths
        # A stream has room for all codes of a frame, whichever come.
        values = F.pad(codes.values, (0, 0, 0, self.num_codebooks - books))
        samples, lengths = run_blocks(
            lambda x, _: self._speak(x[..., :books].transpose(1, 2), x[..., -1]),
            self.field,
            torch.cat([values, places[:, None]], dim=1).transpose(1, 2),
            codes.lengths,
            None if state is None else state.frames,
            final=final,
            block=self.block,
        )
        return Audio(samples[:, None], self.sample_rate, lengths)

    def _speak(self, codes: Tensor, places: Tensor) -> Tensor:
        """Codes [R, k, T] at places [R, T] of their streams to samples [R, T * hop]."""
        frames = self.quantizer.decode(codes).transpose(1, 2)
        made: Tensor = self.decoder(frames, frame_noise(places, self._rates, self.seed))
        return made[:, 0]
