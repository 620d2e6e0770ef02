"""LLaMA-Omni (arXiv:2409.06666) as it was published: ``ICTNLP/Llama-3.1-8B-Omni``."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from lalia.checkpoints import llama_omni, text_lms
from lalia.checkpoints.tensors import Tensors, read_config, weight_files
from lalia.encoders import Windows
from lalia.errors import WeightsError
from lalia.layouts import Concat, Flat
from lalia.lm import HF, Lookup, Sampler, Sampling
from lalia.published.lookup import complete_config, published_recipe
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import Features, SSLUnits, Text

__all__ = ["LLAMA_OMNI", "LlamaOmni"]

_KINDS = ("omni_speech2s_llama", "omni_speech_llama")
_NEEDED = ("speech_encoder_ds_rate", "speech_encoder_hidden_size", "unit_vocab_size", "ctc_upsample_factor")
_SHAPE = (
    "attention_bias",
    "bos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "mlp_bias",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "tie_word_embeddings",
    "vocab_size",
)
"""What makes a Llama the one that it is."""

_SYSTEM = (
    "You are a helpful language and speech assistant. You are able to understand the speech content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
_REQUEST = "Please directly answer the questions in the user's speech."
"""What the model was trained with around a question (``omni_speech/conversation.py``, ``infer/examples``)."""

_SECONDS = 30.0
"""Every question is this long: upstream fills it with silence and hears that too."""


def _turn(role: str, text: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}"


class LlamaOmni:
    """A Llama with a projector and a generator of units. Whisper and the vocoder of units are published apart."""

    def recognises(self, folder: Path) -> bool:
        return (folder / "config.json").is_file() and read_config(folder).get("model_type") in _KINDS

    def recipe(self, folder: Path, name: str) -> Recipe:
        config = self._config(folder)
        base = published_recipe("llama_omni")
        if config.get("speech_generator_type", "ctc") != "ctc" or config.get("speech_projector_type") != "linear":
            raise WeightsError(
                f"{name} is another kind of LLaMA-Omni than that of 2024. Give ICTNLP/Llama-3.1-8B-Omni."
            )
        ends = config["eos_token_id"]
        # Of several, the last ends a turn; the others end texts of which there are none here.
        end = ends[-1] if isinstance(ends, list) else ends
        text = Text.Config(name, vocabulary_size=config["vocab_size"], end=end)
        question = Features.Config(
            _encoder(folder, config),
            stack=config["speech_encoder_ds_rate"],
            dim=config["speech_encoder_hidden_size"],
            at_least=_SECONDS,
            windows=Windows(block=_SECONDS, before=0.0, after=0.0),
        )
        units = base.streams["units"].tokenizer
        assert isinstance(units, SSLUnits.Config)
        llm, decoder = base.lms["llm"], base.lms["speech_decoder"]
        layers = text_lms.backbone_config(llama_omni.generator_config(config))
        projector = llm.inputs["question"]
        llama = {"model_type": "llama", **{n: config[n] for n in _SHAPE}}
        if layers is None:
            raise WeightsError(f"{name} has layers that lalia's Transformer cannot be. Give ICTNLP/Llama-3.1-8B-Omni.")
        return replace(
            base,
            streams={
                "before": Stream(text, text=_turn("system", _SYSTEM) + "<|eot_id|>" + _turn("user", "")),
                "question": Stream(question, channel="user"),
                "after": Stream(text, text=f"\n{_REQUEST}<|eot_id|>" + _turn("assistant", "")),
                "text": Stream(text),
                "units": Stream(replace(units, clusters=config["unit_vocab_size"])),
            },
            lms={
                "llm": replace(
                    llm,
                    layout=Concat(
                        (Flat("before", closed=False), Flat("question"), Flat("after", closed=False), Flat("text"))
                    ),
                    inputs={
                        "before": Lookup(tied_to="text"),
                        "question": projector,
                        "after": Lookup(tied_to="text"),
                        "text": Lookup(),
                    },
                    backbone=HF.Config(name, pretrained=False, architecture=llama),
                    sampler=Sampler(Sampling(temperature=0.0)),
                ),
                "speech_decoder": replace(
                    decoder, backbone=replace(layers, final_norm=False), upsample=config["ctc_upsample_factor"]
                ),
            },
            vocoder=None,
            stages=(),
            published_parameters=None,
        )

    def tensors(self, folder: Path) -> dict[str, Tensor]:
        config = self._config(folder)
        found = llama_omni.from_published(Tensors(weight_files(folder)), config)
        words = found["llm.embedding"]
        made = {
            f"lms.llm.backbone.model.{n.removeprefix('llm.backbone.')}": t
            for n, t in found.items()
            if n.startswith("llm.backbone.")
        }
        made |= {
            # What begins every text.
            "lms.llm.start": words[config["bos_token_id"]],
            "lms.llm.tables.text.embedding.weight": words,
            "lms.llm.heads.text.weight": found.get("llm.head", words),
        }
        for side in ("weight", "bias"):
            made[f"lms.llm.inputs.question.first.{side}"] = found[f"projector.first.{side}"]
            made[f"lms.llm.inputs.question.second.{side}"] = found[f"projector.second.{side}"]
            made[f"lms.speech_decoder.inputs.llm/hidden.first.{side}"] = found[f"generator.input.{side}"]
            made[f"lms.speech_decoder.heads.units.labels.{side}"] = found[f"generator.labels.{side}"]
        layers = {n: t for n, t in found.items() if n.startswith("generator.layers.")}
        made |= {f"lms.speech_decoder.backbone.{n.removeprefix('generator.')}": t for n, t in layers.items()}
        # There is nothing before the first of these steps.
        made["lms.speech_decoder.start"] = found["generator.input.bias"].new_zeros(len(found["generator.input.bias"]))
        return made

    def missing(self, name: str) -> str:
        return (
            f"{name} has no vocoder: that of LLaMA-Omni is published apart, as a pickle, which lalia does not open. "
            "The model answers in text and in units of speech, without sound."
        )

    def _config(self, folder: Path) -> dict[str, Any]:
        """``config.json`` with what it leaves out."""
        said = read_config(folder)
        for needed in _NEEDED:
            if needed not in said:
                raise WeightsError(
                    f"{folder}/config.json has no {needed}: this LLaMA-Omni does not hear, or does not speak. "
                    "Give ICTNLP/Llama-3.1-8B-Omni."
                )
        return {**said, **complete_config("llama", said, folder)}


def _encoder(folder: Path, config: Mapping[str, Any]) -> str:
    """The Whisper that listens: a folder where the configuration names one, else by its size, as in ``large-v3.pt``."""
    said = str(config.get("speech_encoder") or "large-v3")
    for path in (Path(said), folder / said):
        if path.is_dir():
            return str(path.absolute())
    return f"openai/whisper-{PurePosixPath(said).stem}"


LLAMA_OMNI = LlamaOmni()
