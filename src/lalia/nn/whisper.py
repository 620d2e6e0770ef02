"""Whisper's encoder and decoder (Radford et al., arXiv:2212.04356), over as much sound as there is.

Upstream always hears 30 s, of which most is padding. Here the encoder takes any length up to that, and the decoder
looks at what it is given. Parameters have the names that they have in ``transformers``.

Shapes: B batch, M mel bins, T frames of the encoder (50 Hz), S steps of the decoder, D dim, H heads.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.config import Configurable
from lalia.errors import ConfigError
from lalia.nn.layers import INIT_STD
from lalia.nn.spectral import mel_filters
from lalia.streaming import State
from lalia.streams import valid_steps

__all__ = ["Memory", "StepState", "Whisper", "WhisperMel"]

_SAMPLE_RATE, _WINDOW, _HOP = 16000, 400, 160
_FLOOR_DECADES = 8.0


class WhisperMel(nn.Module):
    """Whisper's log-mel at 100 Hz: samples [..., N] at 16 kHz to [..., M, N // 160] (§2.2).

    What is more than 80 dB under the loudest is cut off, so that the frames depend on the loudest sound of the window.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("filters", mel_filters(_SAMPLE_RATE, _WINDOW, bins, 0.0, 8000.0), persistent=False)
        self.register_buffer("window", torch.hann_window(_WINDOW), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        spectrum = torch.stft(samples, _WINDOW, _HOP, window=self.window, return_complex=True)[..., :-1].abs() ** 2
        mel = torch.log10((self.filters @ spectrum).clamp(min=1e-10))
        return (torch.maximum(mel, mel.amax((-2, -1), keepdim=True) - _FLOOR_DECADES) + 4.0) / 4.0


@dataclass
class Memory(State):
    """What the decoder looks at: keys and values of the sound, per layer [B, H, T, D_head].

    ``mask`` [B, 1, 1, T] is true where a row has sound; None where all rows have all of it.
    """

    keys: list[Tensor]
    values: list[Tensor]
    mask: Tensor | None = None


@dataclass
class StepState(State):
    """The steps so far: per layer keys and values [B, H, capacity, D_head], of which ``position`` count."""

    keys: list[Tensor]
    values: list[Tensor]
    position: int = 0


class Whisper(Configurable, nn.Module):
    """The network alone: what goes in and out as text is the recogniser's."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param vocabulary_size: rows of the table that is both ends of the decoder.
        :param source_positions: frames that the encoder hears at most.
        :param target_positions: steps that the decoder makes at most.
        """

        _: KW_ONLY
        dim: int
        encoder_layers: int
        decoder_layers: int
        num_heads: int
        ffn_dim: int
        vocabulary_size: int
        num_mel_bins: int = 80
        source_positions: int = 1500
        target_positions: int = 448

        def __post_init__(self) -> None:
            if self.dim % self.num_heads:
                raise ConfigError(
                    f"Whisper has dim {self.dim} and {self.num_heads} heads. Make dim a multiple of num_heads."
                )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = _Encoder(config), _Decoder(config)

    def remember(self, sound: list[Tensor]) -> Memory:
        """What the decoder is to look at, of the sounds [T, D] of the rows that the encoder gave."""
        lengths = torch.tensor([len(x) for x in sound])
        together = nn.utils.rnn.pad_sequence(sound, batch_first=True)
        ragged = bool((lengths < together.shape[1]).any())
        mask = valid_steps(lengths, together.shape[1]) if ragged else None
        heads = [layer.encoder_attn.keys_and_values(together) for layer in self.decoder.layers]
        return Memory(
            [k for k, _ in heads],
            [v for _, v in heads],
            None if mask is None else mask[:, None, None].to(together.device),
        )

    def init_state(self, batch_size: int, capacity: int = 64) -> StepState:
        """Before the first step."""
        c, like = self.config, self.decoder.embed_tokens.weight
        shape = (batch_size, c.num_heads, capacity, c.dim // c.num_heads)
        empty = [(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(c.decoder_layers)]
        return StepState([k for k, _ in empty], [v for _, v in empty])

    def step(self, ids: Tensor, memory: Memory, state: StepState) -> Tensor:
        """Ids [B, S] to the hidden states [B, S, D] that predict what comes after each."""
        hidden: Tensor = self.decoder(ids, memory, state)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] to [..., V]."""
        return F.linear(hidden, self.decoder.embed_tokens.weight)


def _table(rows: int, dim: int) -> nn.Embedding:
    weight = torch.empty(rows, dim)
    if not weight.is_meta:  # drawing nothing there has torch load its compiler, which takes seconds
        nn.init.normal_(weight, std=INIT_STD)
    return nn.Embedding(rows, dim, _weight=weight)


class _Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(3))
        self.k_proj = nn.Linear(dim, dim, bias=False)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._split(self.k_proj(x)), self._split(self.v_proj(x))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        mixed = F.scaled_dot_product_attention(self._split(self.q_proj(x)), keys, values, mask)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class _Layer(nn.Module):
    """A layer of the encoder; with ``looks``, one of the decoder."""

    def __init__(self, config: Whisper.Config, *, looks: bool) -> None:
        super().__init__()
        dim = config.dim
        self.self_attn = _Attention(dim, config.num_heads)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        if looks:
            self.encoder_attn = _Attention(dim, config.num_heads)
            self.encoder_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, config.ffn_dim), nn.Linear(config.ffn_dim, dim)
        self.final_layer_norm = nn.LayerNorm(dim)

    def think(self, x: Tensor) -> Tensor:
        more: Tensor = self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))
        return x + more


class _Encoder(nn.Module):
    """Log-mel [B, M, 2 T] to [B, T, D]."""

    def __init__(self, config: Whisper.Config) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.dim, 3, padding=1)
        self.conv2 = nn.Conv1d(config.dim, config.dim, 3, stride=2, padding=1)
        self.embed_positions = _table(config.source_positions, config.dim)
        self.layers: Any = nn.ModuleList(_Layer(config, looks=False) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.dim)

    def forward(self, mel: Tensor) -> Tensor:
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.embed_positions.weight[: x.shape[1]]
        for layer in self.layers:
            normed = layer.self_attn_layer_norm(x)
            x = layer.think(x + layer.self_attn(normed, *layer.self_attn.keys_and_values(normed)))
        out: Tensor = self.layer_norm(x)
        return out


class _Decoder(nn.Module):
    def __init__(self, config: Whisper.Config) -> None:
        super().__init__()
        self.embed_tokens = _table(config.vocabulary_size, config.dim)
        self.embed_positions = _table(config.target_positions, config.dim)
        self.layers: Any = nn.ModuleList(_Layer(config, looks=True) for _ in range(config.decoder_layers))
        self.layer_norm = nn.LayerNorm(config.dim)

    def forward(self, ids: Tensor, memory: Memory, state: StepState) -> Tensor:
        start, stop = state.position, state.position + ids.shape[1]
        if stop > state.keys[0].shape[2]:
            room = max(stop, 2 * state.keys[0].shape[2]) - state.keys[0].shape[2]
            state.keys, state.values = ([F.pad(x, (0, 0, 0, room)) for x in xs] for xs in (state.keys, state.values))
        steps = torch.arange(start, stop, device=ids.device)
        mask = None if len(steps) == 1 else torch.arange(stop, device=ids.device) <= steps[:, None]
        x = self.embed_tokens(ids) + self.embed_positions.weight[start:stop]
        for i, layer in enumerate(self.layers):
            normed = layer.self_attn_layer_norm(x)
            keys, values = layer.self_attn.keys_and_values(normed)
            state.keys[i][:, :, start:stop], state.values[i][:, :, start:stop] = keys, values
            x = x + layer.self_attn(normed, state.keys[i][:, :, :stop], state.values[i][:, :, :stop], mask)
            looking = layer.encoder_attn_layer_norm(x)
            x = x + layer.encoder_attn(looking, memory.keys[i], memory.values[i], memory.mask)
            x = layer.think(x)
        state.position = stop
        out: Tensor = self.layer_norm(x)
        return out
