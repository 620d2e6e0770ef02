"""What is measured: plain data, so that the process that only reads clocks need not load torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lalia.recipes import names

__all__ = ["CASES", "Aim", "Case", "Quantity", "find"]

Quantity = Literal["tokens/s", "frames/s", "items/s", "x real time", "real-time factor", "ms"]
"""Work per second, seconds of computing per second of sound, or milliseconds to wait."""


@dataclass(frozen=True)
class Aim:
    """At least this ratio of speeds, at least this rate, or at most this real-time factor."""

    of: Literal["ratio", "value"]
    number: float


@dataclass(frozen=True)
class Case:
    """One line of a table.

    :param group: what is measured: the name of a table.
    :param name: under which circumstances.
    :param module: of this package, with the functions ``lalia`` and ``peer``.
    :param peer: who is measured beside lalia; None where nobody does the same.
    :param options: of both functions.
    :param quick: those that are smaller with ``--quick``.
    :param arithmetic: which of the machine's limits bounds it.
    :param clock: how much of the quantity a second is for what must keep up with a clock.
    """

    group: str
    name: str
    module: str
    peer: str | None
    quantity: Quantity
    aim: Aim | None
    options: Mapping[str, Any]
    quick: Mapping[str, Any] = field(default_factory=dict)
    arithmetic: Literal["fp32", "bf16"] = "fp32"
    clock: float | None = None

    @property
    def label(self) -> str:
        """What the command line calls it."""
        return f"{self.group}-{self.name.replace(' ', '-')}"


def _tokenize(name: str, **options: Any) -> Case:
    return Case(
        "tokenize",
        name,
        "tokenizing",
        "transformers WhisperModel on windows padded to 30 s, NumPy nearest centroid",
        "x real time",
        Aim("value", 40.0),
        {"seconds": 120.0, **options},
        {"seconds": 40.0},
    )


def _train(precision: Literal["fp32", "bf16"], lengths: Literal["fixed", "variable"]) -> Case:
    return Case(
        "train",
        f"{precision} {lengths}",
        "training",
        "transformers Trainer on LlamaForCausalLM",
        "tokens/s",
        Aim("ratio", 1.2),
        {"precision": precision, "lengths": lengths, "max_tokens": 2048, "batches": 3},
        {"max_tokens": 1024, "batches": 1},
        arithmetic=precision,
    )


def _generate(name: str, **options: Any) -> Case:
    return Case(
        "generate",
        name,
        "generation",
        "transformers LlamaForCausalLM.generate",
        "tokens/s",
        Aim("ratio", 2.0),
        {"prompt": 75, "new": 150, "ragged": False, **options},
        {"new": 50},
    )


def _decode(precision: Literal["fp32", "bf16", "int8"]) -> Case:
    return Case(
        "decode",
        precision,
        "decoding",
        "transformers generate of the same LM in the same precision (beside int8: bf16)",
        "tokens/s",
        Aim("ratio", 2.0),
        {"precision": precision, "new": 64},
        {"new": 24},
        arithmetic="fp32" if precision == "fp32" else "bf16",
    )


def _chat() -> Case:
    return Case(
        "chat",
        "mini",
        "chatting",
        "the cascade of the same parts: recogniser, text LM, sentences read out",
        "ms",
        Aim("ratio", 2.5),
        {"questions": None},
        {"questions": 8},
    )


def _serve(model: str) -> Case:
    return Case("serve", model, "serving", None, "ms", None, {})


def _vocode(name: str, vocoder: Literal["vocos", "hifigan"], chunk_seconds: float | None = None) -> Case:
    return Case(
        "vocode",
        name,
        "vocoding",
        "transformers SpeechT5HifiGan" + (" on the chunks alone, without context" if chunk_seconds else ""),
        "real-time factor",
        Aim("value", 0.1),
        {"vocoder": vocoder, "seconds": 4.0, "chunk_seconds": chunk_seconds},
        {"seconds": 2.0},
    )


def _train_moshi(precision: Literal["fp32", "bf16"]) -> Case:
    return Case(
        "moshi",
        f"train {precision}",
        "moshi_training",
        "transformers MoshiForConditionalGeneration, its decoder and depth decoder, the same loop",
        "frames/s",
        Aim("ratio", 1.0),
        {"precision": precision, "rows": 2, "frames": 15},
        arithmetic=precision,
    )


def _train_moshi_alone(precision: Literal["fp32", "bf16"]) -> Case:
    return Case(
        "moshi",
        f"train {precision} 20 s",
        "moshi_training",
        None,
        "frames/s",
        None,
        {"precision": precision, "rows": 4, "frames": 62},
        arithmetic=precision,
    )


def _generate_moshi(rows: int) -> Case:
    return Case(
        "moshi",
        f"generate batch {rows}",
        "moshi_generation",
        "transformers MoshiForConditionalGeneration, its decoder and depth decoder step by step",
        "frames/s",
        Aim("ratio", 1.5),
        {"rows": rows, "frames": 50},
        {"frames": 25},
        clock=12.5 * rows,
    )


def _abx(name: str, context: Literal["within", "any"], **options: Any) -> Case:
    return Case(
        "abx",
        name,
        "abx",
        "zerospeech-libriabx2, the code of the ZeroSpeech challenge",
        "items/s",
        Aim("ratio", 2.0),
        {"context": context, "dim": 256, **options},
        {"dim": 64},
    )


def _score(batch: int, *, pairs: bool = False) -> Case:
    return Case(
        "score",
        f"pairs batch {batch}" if pairs else f"batch {batch}",
        "scoring",
        "transformers LlamaForCausalLM, batches in the order of the files, softmax and gather",
        "tokens/s",
        Aim("ratio", 2.0),
        {"recordings": 128, "batch": batch, "pairs": pairs},
        {"recordings": 32},
    )


def _recipe(name: str) -> Case:
    return Case(
        "recipes", name, "recipes", None, "tokens/s", None, {"recipe": name, "steps": 4, "seconds": 2.0}, {"steps": 2}
    )


CASES = (
    _tokenize("utterances", joined=False),
    _tokenize("recording", joined=True),
    _train("fp32", "fixed"),
    _train("fp32", "variable"),
    _train("bf16", "fixed"),
    _train("bf16", "variable"),
    _generate("batch 1", rows=1),
    _generate("batch 8", rows=8),
    _generate("batch 32", rows=32),
    _generate("ragged 8", rows=8, ragged=True),
    _score(1),
    _score(16),
    _score(128),
    _score(16, pairs=True),
    _decode("fp32"),
    _decode("bf16"),
    _decode("int8"),
    _chat(),
    _serve("mini"),
    _serve("cascade"),
    _vocode("vocos whole", "vocos"),
    _vocode("vocos streaming", "vocos", 0.1),
    _vocode("hifigan whole", "hifigan"),
    _vocode("hifigan streaming", "hifigan", 0.1),
    _train_moshi("fp32"),
    _train_moshi("bf16"),
    _train_moshi_alone("fp32"),
    _train_moshi_alone("bf16"),
    _generate_moshi(1),
    _generate_moshi(8),
    _abx("triphones", "within", contexts=40, phones=3, most=3, frames=(6, 16)),
    _abx("phones", "any", contexts=1, phones=10, most=9, frames=(3, 9)),
    *(_recipe(name) for name in names()),
)


def find(names: list[str]) -> list[Case]:
    """The cases of groups or labels, in the order above; all when none is named.

    :raises KeyError: a name that nothing has.
    """
    for name in names:
        if not any(name in (case.group, case.label) for case in CASES):
            raise KeyError(name)
    return [case for case in CASES if not names or case.group in names or case.label in names]
