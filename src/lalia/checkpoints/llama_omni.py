"""LLaMA-Omni's weights (arXiv:2409.06666) for lalia's networks: a pure conversion, dict to dict.

Source: the module names of ``OmniSpeech2SLlamaForCausalLM`` (ictnlp/LLaMA-Omni): a Llama with a projector of speech
features inside, and a generator of units behind it, made of layers of the same kind.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lalia.checkpoints import text_lms
from lalia.errors import WeightsError

__all__ = ["from_published", "generator_config"]

_ENCODER, _PROJECTOR, _GENERATOR = "model.speech_encoder.", "model.speech_projector.", "speech_generator."


def generator_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The layers that find units, as the configuration of a Llama.

    :param config: the checkpoint's, with what a Llama has by default.
    :raises WeightsError: ``ctc_decoder_config`` is not four numbers, as in ``(2,4096,32,11008)``.
    """
    try:
        layers, dim, heads, ffn = (int(n) for n in str(config["ctc_decoder_config"]).strip("()").split(","))
    except (KeyError, ValueError):
        raise WeightsError(
            f"LLaMA-Omni has ctc_decoder_config {config.get('ctc_decoder_config')!r}, which should be four numbers, "
            "layers, dim, heads and hidden size. Give the config.json of the weights."
        ) from None
    sizes = {"num_hidden_layers": layers, "hidden_size": dim, "intermediate_size": ffn}
    heads_of = {"num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": dim // heads}
    return {**config, "model_type": "llama", **sizes, **heads_of}


def from_published(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of LLaMA-Omni; those of its speech encoder, which is Whisper as it was, are left out.

    :param config: of the checkpoint, with what a Llama has by default.
    :returns: ``llm.*`` as ``text_lms.tensors`` gives them; ``projector.first.*`` and ``.second.*``;
        ``generator.layers.*``, ``.input.*`` and ``.labels.*``, of which the last label is blank.
    :raises WeightsError: a tensor is missing or unknown.
    """

    def part(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): state[n] for n in state if n.startswith(prefix)}

    parts = (_ENCODER, _PROJECTOR, _GENERATOR)
    llm = {n: state[n] for n in state if not n.startswith(parts)}
    out = {f"llm.{n}": t for n, t in text_lms.tensors(llm, {**config, "model_type": "llama"}).items()}
    projector, generator = part(_PROJECTOR), part(_GENERATOR)

    def move(source: dict[str, Tensor], home: str, name: str, target: str) -> None:
        for side in ("weight", "bias"):
            if f"{name}.{side}" not in source:
                raise WeightsError(f"The weights of LLaMA-Omni have no {home + name!r}. Give a whole checkpoint of it.")
            out[f"{target}.{side}"] = source.pop(f"{name}.{side}")

    move(projector, _PROJECTOR, "linear1", "projector.first")
    move(projector, _PROJECTOR, "linear2", "projector.second")
    move(generator, _GENERATOR, "input_proj", "generator.input")
    move(generator, _GENERATOR, "output_proj", "generator.labels")
    layers = {n.removeprefix("layers."): generator.pop(n) for n in list(generator) if n.startswith("layers.")}
    out |= {f"generator.{n}": t for n, t in text_lms.layers(layers, generator_config(config)).items()}
    if unknown := {**projector, **generator}:
        raise WeightsError(f"The weights of LLaMA-Omni have {min(unknown)!r}, which lalia does not know. Update lalia.")
    return out
