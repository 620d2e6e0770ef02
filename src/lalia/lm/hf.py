"""Any Hugging Face causal text LM as the backbone of a SpeechLM."""

import copy
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lalia.config import Configurable
from lalia.errors import ConfigError, WeightsError
from lalia.streaming import State

__all__ = ["HF", "HFState"]


@dataclass
class HFState(State):
    """The cache of a Hugging Face model, with which of its columns are real for each row.

    ``mask`` [B, S]; ``position`` [B] steps already taken.
    """

    cache: Any
    mask: Tensor
    position: Tensor

    def select(self, rows: Tensor) -> "HFState":
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        for layer in cache.layers:
            if getattr(layer, "keys", None) is not None:
                layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        return HFState(cache, self.mask[rows], self.position[rows])

    def reset(self, fresh: "HFState", rows: Tensor) -> "HFState":
        # The columns stay, masked: what a row has not seen cannot reach it.
        keep = ~rows.to(self.mask.device)
        return HFState(self.cache, self.mask & keep[:, None], self.position * keep)


class HF(Configurable, nn.Module):
    """A causal LM of ``transformers``, fed with embeddings; its own tables go to the SpeechLM."""

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param name: a hub id or a directory.
        :param new_vocabulary: leave the text vocabulary behind (TWIST, arXiv:2305.13009); otherwise the stream
            ``text`` keeps the model's rows and other streams of its table come after them.
        :param pretrained: start from the weights; otherwise from the architecture alone (cold start).
        :param architecture: the model's ``config.json`` as a mapping, for building it without a hub.
        """

        name: str
        _: KW_ONLY
        new_vocabulary: bool = False
        pretrained: bool = True
        architecture: Mapping[str, Any] | None = None

    def __init__(self, config: Config) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        super().__init__()
        self.config = config
        if config.architecture is not None:
            settings = dict(config.architecture)
            if "model_type" not in settings:
                raise ConfigError(f"HF({config.name!r}) has an architecture without 'model_type'. Add it.")
            settings = AutoConfig.for_model(settings.pop("model_type"), **settings)
        try:
            if config.pretrained:
                model = AutoModelForCausalLM.from_pretrained(config.name, use_safetensors=True, dtype=torch.float32)
            else:
                if config.architecture is None:
                    settings = AutoConfig.from_pretrained(config.name)
                model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise WeightsError(
                f"{config.name!r} cannot be loaded ({reason}). Give a directory, or pretrained=False with architecture."
            ) from None
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        self.text_embedding: Tensor | None = None
        """Rows of the text vocabulary [V, D], until the SpeechLM has taken them."""
        self.text_head: Tensor | None = None
        """Rows of the text output [V, D]; None when tied to the embedding."""
        self.dim = embedding.embedding_dim
        self.start_id = getattr(model.config, "bos_token_id", None)
        if not config.new_vocabulary:
            self.text_embedding = embedding.weight.detach()
            if head is not None and head.weight is not embedding.weight:
                self.text_head = head.weight.detach()
        self.model = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
        # The SpeechLM embeds; what is left here would be memory and dead parameters.
        self.model.set_input_embeddings(nn.Module())

    def init_state(self, batch_size: int, capacity: int = 256) -> HFState:
        """An empty cache."""
        from transformers import DynamicCache

        device = next(self.model.parameters()).device
        return HFState(
            DynamicCache(),
            torch.zeros((batch_size, 0), dtype=torch.bool, device=device),
            torch.zeros(batch_size, dtype=torch.long, device=device),
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: HFState | None = None) -> Tensor:
        """[B, S, D] to [B, S, D]; see ``Transformer.forward``."""
        if state is None:
            # Padding is on the right, so that causality alone keeps it from the steps that count.
            return self.model(inputs_embeds=x, use_cache=False).last_hidden_state
        b, s, d = x.shape
        lengths = torch.full((b,), s, device=x.device) if lengths is None else lengths.to(x.device)
        # Its cache grows by the same columns for every row: shorter rows are pushed to the right, and the
        # columns before them are masked.
        shift = (s - lengths)[:, None]
        source = torch.arange(s, device=x.device)[None] - shift
        valid = source >= 0
        mask = torch.cat([state.mask, valid], dim=1)
        out = self.model(
            inputs_embeds=x.gather(1, source.clamp(min=0)[..., None].expand(b, s, d)),
            attention_mask=mask.long(),
            position_ids=(state.position[:, None] + source).clamp(min=0),
            past_key_values=state.cache,
            use_cache=True,
        )
        state.cache, state.mask, state.position = out.past_key_values, mask, state.position + lengths
        back = (torch.arange(s, device=x.device)[None] + shift).clamp(max=s - 1)
        return out.last_hidden_state.gather(1, back[..., None].expand(b, s, -1))
