"""Whisper from CTranslate2 to the layout of Hugging Face transformers; dictionaries in, dictionaries out.

Nothing is computed but a split: CTranslate2 joins the query, key and value projections of an attention
into one matrix (key and value, where the query comes from elsewhere), and gives the keys a zero bias.

Sources: Radford et al., arXiv:2212.04356; the names of ``WhisperForConditionalGeneration`` (transformers 5)
and of ``ctranslate2/specs/{whisper,transformer}_spec.py`` (CTranslate2 4.8).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lalia.errors import WeightsError

__all__ = [
    "generation_config",
    "model_config",
    "preprocessor_config",
    "state_dict",
    "tokenizer_config",
]

Arrays = Mapping[str, np.ndarray]

_GELU = 3
_MULTILINGUAL_VOCABULARY = 51_865
"""From this size on a vocabulary is multilingual (``Whisper.is_multilingual`` of openai/whisper)."""
_NORM = {"gamma": "weight", "beta": "bias"}


def _num_layers(variables: Arrays, side: str) -> int:
    layers = {name.split("/")[1] for name in variables if name.startswith(f"{side}/layer_") and name.count("/") > 2}
    return len(layers)


def state_dict(variables: Arrays) -> dict[str, np.ndarray]:
    """The parameters of ``WhisperForConditionalGeneration``, as views of the given arrays.

    :param variables: float variables of a CTranslate2 ``WhisperSpec`` by name.
    :raises WeightsError: a variable is missing, or one is there that Whisper does not have.
    """
    rest = dict(variables)
    state: dict[str, np.ndarray] = {}

    def move(source: str, *targets: str | None) -> None:
        """One variable to one name, or in equal parts along its first axis; None drops a zero part."""
        if source not in rest:
            raise WeightsError(f"The CTranslate2 model has no {source!r}. Give a Whisper model.")
        value = rest.pop(source)
        if value.dtype.kind != "f" or value.ndim == 0 or value.shape[0] % len(targets):
            raise WeightsError(
                f"{source!r} is {value.dtype} of shape {list(value.shape)}. Give a Whisper model in floating point."
            )
        for target, part in zip(targets, np.split(value, len(targets)), strict=True):
            if target is not None:
                state[target] = part
            elif part.any():
                raise WeightsError(f"{source!r} has a bias for the keys. Give a Whisper model.")

    def linear(source: str, prefix: str, *names: str) -> None:
        move(f"{source}/weight", *(f"{prefix}.{name}.weight" for name in names))
        move(f"{source}/bias", *(None if name == "k_proj" else f"{prefix}.{name}.bias" for name in names))

    def norm(source: str, target: str) -> None:
        for old, new in _NORM.items():
            move(f"{source}/layer_norm/{old}", f"{target}.{new}")

    for side in ("encoder", "decoder"):
        for i in range(_num_layers(variables, side)):
            source, target = f"{side}/layer_{i}", f"model.{side}.layers.{i}"
            norm(f"{source}/self_attention", f"{target}.self_attn_layer_norm")
            linear(f"{source}/self_attention/linear_0", f"{target}.self_attn", "q_proj", "k_proj", "v_proj")
            linear(f"{source}/self_attention/linear_1", f"{target}.self_attn", "out_proj")
            if side == "decoder":
                norm(f"{source}/attention", f"{target}.encoder_attn_layer_norm")
                linear(f"{source}/attention/linear_0", f"{target}.encoder_attn", "q_proj")
                linear(f"{source}/attention/linear_1", f"{target}.encoder_attn", "k_proj", "v_proj")
                linear(f"{source}/attention/linear_2", f"{target}.encoder_attn", "out_proj")
            norm(f"{source}/ffn", f"{target}.final_layer_norm")
            linear(f"{source}/ffn/linear_0", target, "fc1")
            linear(f"{source}/ffn/linear_1", target, "fc2")
        norm(side, f"model.{side}.layer_norm")
        move(f"{side}/position_encodings/encodings", f"model.{side}.embed_positions.weight")
    for conv in ("conv1", "conv2"):
        linear(f"encoder/{conv}", "model.encoder", conv)
    move("decoder/embeddings/weight", "model.decoder.embed_tokens.weight")
    projection = rest.pop("decoder/projection/weight", None)
    if projection is not None and not np.array_equal(projection, state["model.decoder.embed_tokens.weight"]):
        raise WeightsError("The CTranslate2 model does not tie its output to its embeddings. Give a Whisper model.")
    # Scalars are settings, of which each version of CTranslate2 has more; `model_config` checks those that matter.
    unknown = sorted(name for name, value in rest.items() if value.ndim)
    if unknown:
        raise WeightsError(f"The CTranslate2 model has {unknown[0]!r}, which Whisper has not. Give a Whisper model.")
    return state


def model_config(variables: Arrays, special: Mapping[str, int]) -> dict[str, Any]:
    """``config.json`` for ``WhisperForConditionalGeneration``.

    The weights may be stored in half precision; ``dtype`` says float32 as upstream's does, so that
    ``from_pretrained`` widens them and the model runs on any device unless another type is asked for.

    :param variables: what `state_dict` accepted, scalars included.
    :param special: ids of the special tokens by content, such as ``{"<|endoftext|>": 50256, ...}``.
    """
    shapes = {name: value.shape for name, value in variables.items()}
    heads = {}
    for side in ("encoder", "decoder"):
        if f"{side}/num_heads" not in variables:
            raise WeightsError(f"The CTranslate2 model has no '{side}/num_heads'. Give a Whisper model.")
        heads[side] = int(variables[f"{side}/num_heads"])
        for name, wanted in (("activation", _GELU), ("pre_norm", 1), ("alibi", 0), ("scale_embeddings", 0)):
            value = int(variables.get(f"{side}/{name}", wanted))
            if value != wanted:
                raise WeightsError(f"'{side}/{name}' is {value}, and {wanted} in Whisper. Give a Whisper model.")
    end = _token(special, "<|endoftext|>")
    dim, num_mel_bins, _ = shapes["encoder/conv1/weight"]
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "dtype": "float32",
        "vocab_size": shapes["decoder/embeddings/weight"][0],
        "num_mel_bins": num_mel_bins,
        "d_model": dim,
        "encoder_layers": _num_layers(variables, "encoder"),
        "encoder_attention_heads": heads["encoder"],
        "encoder_ffn_dim": shapes["encoder/layer_0/ffn/linear_0/weight"][0],
        "decoder_layers": _num_layers(variables, "decoder"),
        "decoder_attention_heads": heads["decoder"],
        "decoder_ffn_dim": shapes["decoder/layer_0/ffn/linear_0/weight"][0],
        "max_source_positions": shapes["encoder/position_encodings/encodings"][0],
        "max_target_positions": shapes["decoder/position_encodings/encodings"][0],
        "activation_function": "gelu",
        "is_encoder_decoder": True,
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": _token(special, "<|startoftranscript|>"),
    }


def generation_config(
    config: Mapping[str, Any], settings: Mapping[str, Any], special: Mapping[str, int]
) -> dict[str, Any]:
    """``generation_config.json``: which tokens may not come, the languages, the heads that align.

    :param config: what `model_config` gave.
    :param settings: CTranslate2's ``config.json`` (``suppress_ids``, ``suppress_ids_begin``, ``lang_ids``,
        ``alignment_heads``).
    :param special: as for `model_config`.
    """
    # The English models have the language tokens in their vocabulary too, but never saw them.
    multilingual = config["vocab_size"] >= _MULTILINGUAL_VOCABULARY
    result = {
        "alignment_heads": [list(pair) for pair in settings["alignment_heads"]],
        "begin_suppress_tokens": list(settings["suppress_ids_begin"]),
        "bos_token_id": config["bos_token_id"],
        "decoder_start_token_id": config["decoder_start_token_id"],
        "eos_token_id": config["eos_token_id"],
        "is_multilingual": multilingual,
        "max_initial_timestamp_index": 50,
        "max_length": config["max_target_positions"],
        "no_timestamps_token_id": _token(special, "<|notimestamps|>"),
        "pad_token_id": config["pad_token_id"],
        "prev_sot_token_id": _token(special, "<|startofprev|>"),
        "return_timestamps": False,
        "suppress_tokens": list(settings["suppress_ids"]),
    }
    if multilingual:
        languages = set(settings["lang_ids"])
        result["lang_to_id"] = {token: i for token, i in special.items() if i in languages}
        # Without a task, ``generate`` detects the language and then leaves the model no task token to go on.
        result["task"] = "transcribe"
        result["task_to_id"] = {task: _token(special, f"<|{task}|>") for task in ("transcribe", "translate")}
    return result


def tokenizer_config(special: Mapping[str, int], max_length: int) -> dict[str, Any]:
    """``tokenizer_config.json`` beside a ``tokenizer.json``."""
    end = "<|endoftext|>"
    return {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        "add_prefix_space": False,
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
        "unk_token": end,
        "additional_special_tokens": sorted((token for token in special if token != end), key=special.__getitem__),
        "model_max_length": max_length,
    }


def preprocessor_config(num_mel_bins: int) -> dict[str, Any]:
    """``preprocessor_config.json``: log mel spectrograms of 30 s at 16 kHz, 25 ms windows every 10 ms (§2.2)."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "chunk_length": 30,
        "feature_size": num_mel_bins,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 480_000,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": 16_000,
    }


def _token(special: Mapping[str, int], content: str) -> int:
    if content not in special:
        raise WeightsError(f"The tokenizer has no token {content!r}. Give the tokenizer of a Whisper model.")
    return special[content]
