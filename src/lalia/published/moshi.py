"""Moshi (arXiv:2410.00037) as Kyutai published it, and as ``MoshiForConditionalGeneration`` of transformers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.checkpoints import kyutai, mimi, moshi
from lalia.checkpoints.tensors import Tensors, read_config, weight_files
from lalia.errors import WeightsError
from lalia.layouts import Parallel
from lalia.lm import Depth
from lalia.published.lookup import complete_config, published_recipe
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import Mimi, Text
from lalia.vocoders import CodecDecoder

__all__ = ["KYUTAI", "TRANSFORMERS", "Kyutai", "Transformers", "model_tensors"]

_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "depformer_pos_emb": ("none",),
    "depformer_norm": (None,),
    "depformer_low_rank_embeddings": (None,),
    "depformer_multi_linear": (True,),
    "depformer_weights_per_step": (True,),
    "kv_repeat": (1,),
    "cross_attention": (False,),
    "demux_second_stream": (False,),
    "demux_second_text_stream": (False,),
    "extra_heads_num_heads": (0,),
    "quantize": (False,),
    "lora": (False,),
    "lora_name": (None,),
    "conditioners": (None, {}),
    "positional_embedding": ("rope",),
    "gating": ("silu",),
    "norm": ("rms_norm_f32",),
    "layer_scale": (None,),
    "bias_proj": (False,),
    "norm_emb": (False,),
}
"""Settings of Kyutai's ``LMModel`` for which the recipe has no other value than the first."""


@dataclass(frozen=True)
class _Sizes:
    """What both forms say.

    :param own: codebooks of Moshi's own speech; ``user`` of the other side's.
    :param delays: of the text, of its own codebooks, of the user's.
    """

    own: int
    user: int
    codes: int
    words: int
    pad: int
    end_of_pad: int
    delays: tuple[int, ...]


def _recipe(name: str, sizes: _Sizes, configs: moshi.Configs, codec: Mapping[str, Any]) -> Recipe:
    """The recipe ``moshi`` at other sizes."""
    base = published_recipe("moshi")
    facts = {n: v for n, v in codec.items() if n in mimi.PUBLISHED}
    own = Mimi.Config(name, num_codebooks=sizes.own, architecture=facts)
    user = replace(own, num_codebooks=sizes.user)
    kind = own.spec.kind
    if kind.codebook_size != sizes.codes:  # type: ignore[union-attr]
        raise WeightsError(f"{name} has {sizes.codes} codes, and its Mimi others. Give a whole checkpoint of Moshi.")
    backbone, depth = configs
    lm = base.lms["helium"]
    text = Text.Config(
        name, vocabulary_size=sizes.words, rate=own.spec.frame_rate, pad=sizes.pad, end_of_pad=sizes.end_of_pad
    )
    lm = replace(
        lm,
        layout=Parallel(("text", "moshi", "user"), delays=sizes.delays, closed=False),
        backbone=backbone,
        heads={**lm.heads, "moshi": Depth.Config(depth, first="text")},
    )
    return replace(
        base,
        streams={
            "text": Stream(text, aligned_to="moshi"),
            "moshi": Stream(own),
            "user": Stream(user, channel="user"),
        },
        lms={"helium": lm},
        vocoder=CodecDecoder.Config("moshi", own),
        # They are of the published size.
        stages=(),
        published_parameters=None,
    )


def model_tensors(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of Moshi by the names of ``Model.module``.

    Upstream's tables have one row after the last code, for a codebook that has none yet; in lalia that row is no code,
    and the one after the last code is that of an end, which Moshi never comes to.

    :param found: what ``checkpoints.moshi.from_kyutai`` or ``from_transformers`` gave.
    """
    lm = "lms.helium."
    words, codes = found["text.embedding"], found["codes.embedding"]
    own = len(found["depth.out"])
    made = {f"{lm}{name}": t for name, t in found.items() if name.startswith("backbone.")}
    nothing = torch.cat([words[-1:], codes[:, -1]])
    made[f"{lm}start"] = nothing.float().sum(dim=0).to(words.dtype)
    made[f"{lm}tables.text.embedding.weight"] = words
    made[f"{lm}heads.text.weight"] = F.pad(found["text.head"], (0, 0, 0, 1))
    for stream, books in (("moshi", codes[:own]), ("user", codes[own:])):
        made[f"{lm}tables.{stream}.embedding.weight"] = books.flatten(0, 1)
        made[f"{lm}absent.{stream}"] = books[:, -1]
    head = f"{lm}heads.moshi."
    made |= {f"{head}{n.removeprefix('depth.')}": t for n, t in found.items() if n.startswith("depth.network.")}
    made[f"{head}codes"] = torch.cat([found["depth.codes"], found["depth.codes"][:, -1:]], dim=1)
    made[f"{head}first.weight"] = torch.cat([found["depth.first"], found["depth.first"][-1:]])
    made[f"{head}out"] = F.pad(found["depth.out"], (0, 0, 0, 1))
    return made


class Kyutai:
    """``kyutai/moshiko-pytorch-bf16`` and its like: Kyutai's own names, with Mimi and a SentencePiece model beside."""

    def recognises(self, folder: Path) -> bool:
        return kyutai.find(folder) is not None

    def recipe(self, folder: Path, name: str) -> Recipe:
        files = _repository(folder)
        known = {**moshi.KYUTAI_7B, **files.config}
        for setting, allowed in _PLAIN.items():
            if known.get(setting, allowed[0]) not in allowed:
                raise WeightsError(
                    f"{name} has {setting} {known[setting]!r}, which lalia's Moshi has not. Give moshiko or moshika."
                )
        own, user = known["dep_q"], known["n_q"] - known["dep_q"]
        if own < 1 or user < 1:
            raise WeightsError(
                f"{name} speaks {own} codebooks and hears {user}; Moshi does both. Give moshiko or moshika."
            )
        codec = mimi.config(folder)
        assert codec is not None
        sizes = _Sizes(
            own,
            user,
            known["card"],
            known["text_card"],
            known["existing_text_padding_id"],
            known.get("existing_text_end_padding_id", 0),
            tuple(known["delays"]),
        )
        return _recipe(name, sizes, moshi.kyutai_configs(files.config), codec)

    def tensors(self, folder: Path) -> dict[str, Tensor]:
        files = _repository(folder)
        return model_tensors(moshi.from_kyutai(Tensors([files.lm]), files.config))

    def missing(self, name: str) -> str:
        return ""


def _repository(folder: Path) -> kyutai.Repository:
    found = kyutai.find(folder)
    assert found is not None, "only a folder that was recognised is read"
    return found


class Transformers:
    """``kmhf/hf-moshiko`` and its like, which hold their Mimi among their own weights."""

    def recognises(self, folder: Path) -> bool:
        if not (folder / "config.json").is_file():
            return False
        config = read_config(folder)
        return config.get("model_type") == "moshi" and config.get("architectures") != ["MoshiForCausalLM"]

    def recipe(self, folder: Path, name: str) -> Recipe:
        config = self._config(folder)
        own = config["num_codebooks"]
        delays = (0, *(1,) * (own - 1))
        pad, last = config["pad_token_id"], config["vocab_size"]
        sizes = _Sizes(own, own, config["audio_vocab_size"], last, 3 if pad is None else pad, 0, (0, *delays, *delays))
        return _recipe(name, sizes, moshi.transformers_configs(config), config["audio_encoder_config"])

    def tensors(self, folder: Path) -> dict[str, Tensor]:
        files = Tensors(weight_files(folder))
        own = {name: files[name] for name in files if not name.startswith("audio_encoder.")}
        return model_tensors(moshi.from_transformers(own, self._config(folder)))

    def missing(self, name: str) -> str:
        return ""

    def _config(self, folder: Path) -> dict[str, Any]:
        """``config.json`` with what it leaves out."""
        return complete_config("moshi", read_config(folder), folder)


KYUTAI, TRANSFORMERS = Kyutai(), Transformers()
