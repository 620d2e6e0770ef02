"""Any Hugging Face causal text LM as the backbone of a SpeechLM."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.checkpoints import KNOWN, fetch, text_lms
from lalia.checkpoints.quiet import quiet
from lalia.checkpoints.tensors import Tensors, read_config, weight_files
from lalia.config import Configurable
from lalia.errors import ConfigError, WeightsError
from lalia.lm.architectures import ARCHITECTURES
from lalia.nn.masks import Mask, Sight
from lalia.nn.packed import pack_linears
from lalia.nn.transformer import KVState, Transformer
from lalia.streaming import RowStates, State

__all__ = ["HF", "HFState", "take_rows"]

_TINY = {
    # Sizes under the names that the families of transformers have for them.
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner"), 128),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head"), 4),
    "num_key_value_heads": 2,
    "head_dim": 16,
}


@dataclass
class HFState(State):
    """Keys and values of every layer so far, with which of their columns are real for each row.

    ``keys`` and ``values``: per layer [B, H, C, D_head], None of a layer that keeps none of its own; ``mask``
    [B, C]; ``position`` [B] steps already taken.
    """

    keys: list[Tensor | None]
    values: list[Tensor | None]
    mask: Tensor
    position: Tensor

    def rewinds(self, steps: int) -> bool:
        """Whether ``steps`` more can be taken and then taken back."""
        return True

    def rewind(self, steps: int) -> None:
        """Take the last steps back, of one row or of rows that took them together."""
        kept = self.mask.shape[1] - steps
        self.keys, self.values = ([x if x is None else x[:, :, :kept] for x in of] for of in (self.keys, self.values))
        self.mask, self.position = self.mask[:, :kept], self.position - steps

    def reset(self, fresh: "HFState", rows: Tensor) -> "HFState":
        # A column's place means nothing, only its mask does: both are widened to one width, at the left.
        rows = rows.to(self.mask.device)
        width = max(self.mask.shape[1], fresh.mask.shape[1])

        def merge(old: Sequence[Tensor | None], new: Sequence[Tensor | None]) -> list[Tensor | None]:
            # A state that has seen nothing has no layers yet.
            pairs = zip(old or [None] * len(new), new or [None] * len(old), strict=True)
            return [_merge(rows[:, None, None, None], a, b, width) for a, b in pairs]

        mask = torch.where(
            rows[:, None],
            F.pad(fresh.mask, (width - fresh.mask.shape[1], 0)),
            F.pad(self.mask, (width - self.mask.shape[1], 0)),
        )
        position = torch.where(rows, fresh.position, self.position)
        return HFState(merge(self.keys, fresh.keys), merge(self.values, fresh.values), mask, position)


def _join(states: Sequence[HFState]) -> HFState:
    """States of one row each as one, at the right."""
    width = max(s.mask.shape[1] for s in states)
    layers = max(len(s.keys) for s in states)

    def joined(of: list[list[Tensor | None]]) -> list[Tensor | None]:
        made: list[Tensor | None] = []
        for i in range(layers):
            # A state that has seen nothing has no layers yet.
            rows = [x[i] if x else None for x in of]
            like = next((x for x in rows if x is not None), None)
            if like is None:
                made.append(None)
                continue
            whole = [like[:, :, :0] if x is None else x for x in rows]
            made.append(torch.cat([F.pad(x, (0, 0, width - x.shape[2], 0)) for x in whole]))
        return made

    mask = torch.cat([F.pad(s.mask, (width - s.mask.shape[1], 0)) for s in states])
    position = torch.cat([s.position for s in states])
    return HFState(joined([s.keys for s in states]), joined([s.values for s in states]), mask, position)


def _part(joined: HFState, states: Sequence[HFState], steps: int) -> None:
    """Give each state its row of what ``_join`` made of them, after ``steps`` more."""
    for b, state in enumerate(states):
        width = state.mask.shape[1] + steps
        for name in ("keys", "values"):
            found = getattr(joined, name)
            setattr(state, name, [x if x is None else x[b : b + 1, :, -width:].clone() for x in found])
        state.mask, state.position = joined.mask[b : b + 1, -width:].clone(), joined.position[b : b + 1]


def _merge(pick: Tensor, old: Tensor | None, new: Tensor | None, width: int) -> Tensor | None:
    """Columns of ``new`` where ``pick``, else of ``old``."""
    if old is None or new is None:
        # The other's rows are masked here.
        found = new if old is None else old
        return None if found is None else F.pad(found, (0, 0, width - found.shape[2], 0))
    old, new = (F.pad(x, (0, 0, width - x.shape[2], 0)) for x in (old, new))
    return torch.where(pick, new, old)


class HF(Configurable, nn.Module):
    """A causal LM of ``transformers``, fed with embeddings; its own tables go to the SpeechLM.

    A scale of the embeddings or of the logits goes into the tables; a bias or a soft cap of the logits is lost.
    The families that lalia's own Transformer can be (``lalia.checkpoints.text_lms``) run on it: the same numbers,
    faster, and with its masks.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """Which model, and how much of it is kept.

        :param name: known weights (``lalia.checkpoints.KNOWN``), a hub id or a directory.
        :param new_vocabulary: leave the text vocabulary behind (TWIST, arXiv:2305.13009); otherwise the stream
            ``text`` keeps the model's rows and other streams of its table come after them.
        :param num_layers: keep the first so many layers of it; all when not given.
        :param pretrained: start from the weights; otherwise from the architecture alone (cold start).
        :param architecture: the model's ``config.json`` as a mapping, for building it without a hub.
        :param native: compute with lalia's own Transformer where it can be this model, else with transformers.
        :param mask: which steps see which, where it computes; see ``lalia.nn.masks.Mask``.
        """

        name: str
        _: KW_ONLY
        new_vocabulary: bool = False
        num_layers: int | None = None
        pretrained: bool = True
        architecture: Mapping[str, Any] | None = None
        native: bool = True
        mask: Mask = "causal"

        def tiny(self) -> "HF.Config":
            # Without its architecture at hand it is a Llama, as most are: a tiny model is made without downloads.
            known = dict(self.architecture or {"model_type": "llama", **_TINY, "vocab_size": 512})
            small = {k: min(v, _TINY[k]) if k in _TINY and isinstance(v, int) else v for k, v in known.items()}
            return replace(self, pretrained=False, num_layers=None, architecture=small)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.text_embedding: Tensor | None = None
        """Rows of the text vocabulary [V, D], until the SpeechLM has taken them."""
        self.text_head: Tensor | None = None
        """Rows of the text output [V, D]; None where they are those of the embedding."""
        if (folder := _listed(config)) is not None:
            self._read(folder)
            return
        model = _open(config)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        self.dim = embedding.embedding_dim
        self.start_id = getattr(model.config, "bos_token_id", None)
        if not config.new_vocabulary:
            self.text_embedding, self.text_head = _text_rows(model, embedding, head)
        facts = model.config.to_dict()
        shape = text_lms.backbone_config(facts) if config.native else None
        if shape is not None:
            found = text_lms.tensors(model.state_dict(), facts)
            self.model: Any = _native(found, replace(shape, mask=config.mask))
            return
        if config.mask != "causal":
            raise ConfigError(
                f"{config.name!r} does not run on lalia's Transformer, and so has no mask {config.mask!r}. "
                "Choose a model of another family, or mask='causal'."
            )
        self.model = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
        # The SpeechLM embeds; what is left here would be memory and dead parameters.
        self.model.set_input_embeddings(nn.Module())
        pack_linears(self.model)

    def _read(self, folder: Path) -> None:
        """Become the model of a folder, without transformers: its import takes seconds and 150 MB."""
        facts = read_config(folder)
        state: Mapping[str, Tensor] = Tensors(weight_files(folder))
        if self.config.num_layers is not None:
            state, facts = text_lms.first_layers(state, facts, self.config.num_layers)
        found, shape = text_lms.tensors(state, facts), text_lms.backbone_config(facts)
        assert shape is not None
        self.dim, self.start_id = shape.dim, facts.get("bos_token_id")
        if not self.config.new_vocabulary:
            self.text_embedding, self.text_head = found.pop("embedding").float(), found.pop("head", None)
        self.model = _native(found, replace(shape, mask=self.config.mask))

    @property
    def sight(self) -> Sight:
        """What its steps see; a model of transformers is causal."""
        return self.model.sight if isinstance(self.model, Transformer) else Sight()

    @property
    def context(self) -> int | None:
        """The steps that the model is meant for; None where it does not say."""
        config = self.model.config
        return (
            config.context if isinstance(self.model, Transformer) else getattr(config, "max_position_embeddings", None)
        )

    def init_state(self, batch_size: int, capacity: int = 256) -> KVState | HFState:
        """A state before the first step. That of transformers grows with every step, whatever ``capacity``."""
        if isinstance(self.model, Transformer):
            return self.model.init_state(batch_size, capacity)
        device = next(self.model.parameters()).device
        return HFState(
            [],
            [],
            torch.zeros((batch_size, 0), dtype=torch.bool, device=device),
            torch.zeros(batch_size, dtype=torch.long, device=device),
        )

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        state: KVState | HFState | RowStates | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """[B, S, D] to [B, S, D]; see ``Transformer.forward``."""
        if isinstance(self.model, Transformer):
            assert not isinstance(state, HFState)
            return self.model(x, lengths, state, prefix=prefix)
        assert not isinstance(state, KVState)
        if isinstance(state, RowStates):
            # The cache of transformers is copied at every step anyhow.
            joined = _join(state.rows)
            out = self(x, lengths, joined)
            _part(joined, state.rows, x.shape[1])
            return out
        if state is None:
            # Padding is on the right, so that causality alone keeps it from the steps that count.
            return self.model(inputs_embeds=x, use_cache=False).last_hidden_state
        b, s, d = x.shape
        steps = torch.arange(s, device=x.device)[None]
        lengths = torch.full((b,), s, device=x.device) if lengths is None else lengths.to(x.device)
        # Its cache grows by the same columns for every row: shorter rows are pushed to the right, and the
        # columns before them are masked.
        shift = (s - lengths)[:, None]
        source = steps - shift
        mask = torch.cat([state.mask, source >= 0], dim=1)
        cache = _cache(state)
        out = self.model(
            inputs_embeds=x.gather(1, source.clamp(min=0)[..., None].expand(b, s, d)),
            attention_mask=mask.long(),
            position_ids=(state.position[:, None] + source).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
        )
        state.keys, state.values = [x.keys for x in cache.layers], [x.values for x in cache.layers]
        state.mask, state.position = mask, state.position + lengths
        back = (steps + shift).clamp(max=s - 1)
        return out.last_hidden_state.gather(1, back[..., None].expand(b, s, d))


def _open(config: HF.Config) -> Any:
    """The model of ``transformers``.

    :raises ConfigError: an architecture without a model type, or of one that transformers does not know.
    :raises WeightsError: the weights are not there.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    architecture = None
    # On the meta device there is nothing to read weights into.
    reads = config.pretrained and torch.get_default_device().type != "meta"
    listed = KNOWN.get(config.name)
    known = config.architecture or (None if reads else ARCHITECTURES.get((listed and listed.hub) or config.name))
    name = str(fetch(config.name)) if listed and (reads or known is None) else config.name
    if known is not None:
        fields = dict(known)
        try:
            architecture = AutoConfig.for_model(fields.pop("model_type"), **fields)
        except (KeyError, ValueError):
            raise ConfigError(
                f"HF({config.name!r}) has an architecture of model_type "
                f"{known.get('model_type')!r}. Name one that transformers has."
            ) from None
    try:
        shape = architecture if architecture is not None and not reads else AutoConfig.from_pretrained(name)
        if config.num_layers is not None:
            _shorten(shape, config)
        if reads:
            with quiet():
                return AutoModelForCausalLM.from_pretrained(
                    name, config=shape, use_safetensors=True, dtype=torch.float32
                )
        return AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise WeightsError(
            f"{config.name!r} cannot be loaded ({reason}). Give a directory, or pretrained=False with architecture."
        ) from None


def _shorten(shape: Any, config: HF.Config) -> None:
    """Leave out the layers behind those that are kept."""
    count = config.num_layers
    if count is None or not 1 <= count <= shape.num_hidden_layers:
        raise ConfigError(
            f"{config.name!r} has {shape.num_hidden_layers} layers, and num_layers is {count}. Take no more of them."
        )
    shape.num_hidden_layers = count
    if getattr(shape, "layer_types", None):
        shape.layer_types = list(shape.layer_types)[:count]


def _listed(config: HF.Config) -> Path | None:
    """The folder of a model that lalia knows, where it computes it itself with the weights as they are."""
    if config.name not in KNOWN or not config.native or not config.pretrained or config.architecture is not None:
        return None
    # On the meta device there is nothing to read weights into.
    return None if torch.get_default_device().type == "meta" else fetch(config.name)


@torch.no_grad()
def _native(found: dict[str, Tensor], shape: Transformer.Config) -> Transformer:
    """A Transformer with the weights of a text LM, under the names of ``text_lms``, in single precision.

    :param found: emptied as they are taken, so that each is there once.
    """
    with torch.device("meta"):
        network: Transformer = shape.build()
    weights = {}
    for name, p in network.named_parameters():
        tensor = found.pop(f"backbone.{name}", None)
        # A text LM knows no sides of a pair: it begins with none.
        weights[name] = torch.zeros(p.shape) if tensor is None else tensor.float()
    network.load_state_dict(weights, assign=True)
    return network


@torch.no_grad()
def _text_rows(model: Any, embedding: nn.Embedding, head: nn.Linear | None) -> tuple[Tensor, Tensor | None]:
    """The rows of a text LM's input and output tables; the output is None where they are the same."""
    weight = embedding.weight
    # Some families scale what they look up: what comes out is what counts.
    rows = embedding(torch.arange(len(weight), device=weight.device))
    if head is None:
        return rows, None
    # Cohere multiplies its logits, Granite divides them.
    scale = getattr(model, "logit_scale", None) or 1.0 / getattr(model.config, "logits_scaling", 1.0)
    if head.weight is weight and scale == 1 and type(embedding) is nn.Embedding:
        return rows, None
    return rows, head.weight * scale


def _cache(state: HFState) -> Any:
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache()
    for keys, values in zip(state.keys, state.values, strict=True):
        layer = DynamicLayer()
        if keys is not None and values is not None:
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


@torch.no_grad()
def take_rows(weight: Tensor, pretrained: Tensor, count: int) -> None:
    """Fill the first ``count`` rows of ``weight`` [V, D] from a pretrained table, and start the others like them.

    A row without a pretrained one begins at the mean of them, with their spread: as likely as any word.
    """
    n = min(count, len(pretrained))
    weight[:n] = pretrained[:n]
    if len(weight) > n:
        std, mean = torch.std_mean(pretrained[:n], dim=0)
        # With no more digits than the weights of most have: what half precision holds is multiplied faster.
        weight[n:] = (mean + std * torch.randn_like(weight[n:])).half().to(weight.dtype)
