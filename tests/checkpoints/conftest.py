"""A Whisper model of a few thousand parameters in CTranslate2's format, written without lalia's reader."""

import json
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lalia.checkpoints import File, KnownWeights, Member, Wheel
from lalia.checkpoints.convert import convert
from lalia.files import sha256

TYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4, "bfloat16": 5}

MELS, DIM, HEADS, FFN = 80, 16, 2, 24
ENCODER_LAYERS, DECODER_LAYERS = 2, 3
SOURCE_POSITIONS, TARGET_POSITIONS = 20, 12
SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nocaptions|>",
    "<|notimestamps|>",
)
WORDS = tuple("abcdefghijklmnopqrstuvwxyz")


def serialize(
    variables: Mapping[str, np.ndarray],
    aliases: Mapping[str, str] | None = None,
    *,
    bfloat16: tuple[str, ...] = (),
    version: int = 6,
    spec: str = "WhisperSpec",
) -> bytes:
    """The bytes of a ``model.bin``; names in ``bfloat16`` are given as the uint16 halves."""

    def string(text: str) -> bytes:
        raw = text.encode() + b"\0"
        return struct.pack("<H", len(raw)) + raw

    out = [struct.pack("<I", version), string(spec), struct.pack("<II", 3, len(variables))]
    for name, value in variables.items():
        kind = TYPES["bfloat16" if name in bfloat16 else value.dtype.name]
        data = value.tobytes()
        out += [string(name), struct.pack("<B", value.ndim), struct.pack(f"<{value.ndim}I", *value.shape)]
        out += [struct.pack("<BI", kind, len(data)), data]
    out.append(struct.pack("<I", len(aliases or {})))
    out += [string(a) + string(b) for a, b in (aliases or {}).items()]
    return b"".join(out)


def whisper_variables(seed: int = 0, dtype: str = "float32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    result: dict[str, np.ndarray] = {}

    def random(name: str, *shape: int) -> None:
        result[name] = (0.3 * rng.standard_normal(shape)).astype(dtype)

    def linear(name: str, into: int, out: int) -> None:
        random(f"{name}/weight", out, into)
        random(f"{name}/bias", out)

    def norm(name: str) -> None:
        random(f"{name}/layer_norm/gamma", DIM)
        random(f"{name}/layer_norm/beta", DIM)

    for side, layers, positions in (
        ("encoder", ENCODER_LAYERS, SOURCE_POSITIONS),
        ("decoder", DECODER_LAYERS, TARGET_POSITIONS),
    ):
        for i in range(layers):
            layer = f"{side}/layer_{i}"
            norm(f"{layer}/self_attention")
            linear(f"{layer}/self_attention/linear_0", DIM, 3 * DIM)
            result[f"{layer}/self_attention/linear_0/bias"][DIM : 2 * DIM] = 0
            linear(f"{layer}/self_attention/linear_1", DIM, DIM)
            if side == "decoder":
                norm(f"{layer}/attention")
                linear(f"{layer}/attention/linear_0", DIM, DIM)
                linear(f"{layer}/attention/linear_1", DIM, 2 * DIM)
                result[f"{layer}/attention/linear_1/bias"][:DIM] = 0
                linear(f"{layer}/attention/linear_2", DIM, DIM)
            norm(f"{layer}/ffn")
            linear(f"{layer}/ffn/linear_0", DIM, FFN)
            linear(f"{layer}/ffn/linear_1", FFN, DIM)
        norm(side)
        random(f"{side}/position_encodings/encodings", positions, DIM)
        result[f"{side}/num_heads"] = np.array(HEADS, np.int16)
    for name, into in (("conv1", MELS), ("conv2", DIM)):
        random(f"encoder/{name}/weight", DIM, into, 3)
        random(f"encoder/{name}/bias", DIM)
    random("decoder/embeddings/weight", len(SPECIAL) + len(WORDS), DIM)
    for name, value in (("activation", 3), ("alibi", 0), ("pre_norm", 1), ("scale_embeddings", 0)):
        result[f"decoder/{name}"] = np.array(value, np.int8)
    result["decoder/alignment_layer"] = np.array(-1, np.int16)
    return result


ALIASES = {"decoder/projection/weight": "decoder/embeddings/weight"}


def write_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(WORDS)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))


def write_whisper(folder: Path, content: bytes | None = None) -> Path:
    """What a CTranslate2 converter leaves in a folder."""
    (folder / "model.bin").write_bytes(serialize(whisper_variables(), ALIASES) if content is None else content)
    settings = {"alignment_heads": [[1, 0]], "lang_ids": [28], "suppress_ids": [1, 2], "suppress_ids_begin": [3, 26]}
    (folder / "config.json").write_text(json.dumps(settings))
    write_tokenizer(folder)
    return folder


class Toy:
    """Known weights whose two wheels lie in ``index``, and a pip that finds them there."""

    def __init__(self, folder: Path) -> None:
        self.index = folder / "index"
        source, result = folder / "source", folder / "result"
        for made in (self.index, source, result):
            made.mkdir(parents=True)
        write_whisper(source)
        convert("ctranslate2-whisper", source, result)
        content = (source / "model.bin").read_bytes()
        half = len(content) // 2
        parts = (
            {
                "config.json": (source / "config.json").read_bytes(),
                "model.bin.part1": content[:half],
                "tokenizer.json": (source / "tokenizer.json").read_bytes(),
            },
            {"model.bin.part2": content[half:]},
        )
        self.weights = KnownWeights(
            name="toy",
            about="a toy",
            licence="CC0",
            hub="nobody/toy",
            format="ctranslate2-whisper",
            wheels=tuple(self._build(f"toy-part{i}", files) for i, files in enumerate(parts, start=1)),
            files=tuple(File(p.name, sha256(p), p.stat().st_size) for p in sorted(result.iterdir())),
        )
        self.known = {"toy": self.weights}
        self.calls: list[list[str]] = []

    def _build(self, name: str, files: Mapping[str, bytes]) -> Wheel:
        module = name.replace("-", "_")
        path = self.index / f"{module}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{module}/__init__.py", "raise SystemExit('a wheel of weights was imported')")
            archive.writestr("../../escaped.txt", "this must not leave the archive")
            archive.writestr(f"{module}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            archive.writestr(f"{module}-1.0.dist-info/WHEEL", tags)
            for file, content in files.items():
                archive.writestr(f"{module}/data/{file}", content)
        members = tuple(Member(f"{module}/data/{file}", file.split(".part")[0]) for file in files)
        return Wheel(name=name, version="1.0", sha256=sha256(path), size=path.stat().st_size, members=members)

    def pip(self, arguments: list[str], tick: Callable[[], None]) -> tuple[int, str]:
        self.calls.append(list(arguments))
        folder = Path(arguments[arguments.index("-d") + 1])
        for requirement in arguments[arguments.index("-d") + 2 :]:
            name, _, version = requirement.partition("==")
            found = self.index / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
            if not found.exists():
                return 1, f"Looking in links\nERROR: No matching distribution found for {requirement}\n"
            (folder / found.name).write_bytes(found.read_bytes())
            tick()
        return 0, "Successfully downloaded\n"


@pytest.fixture(scope="session")
def ct2() -> ModuleType:
    """The functions and sizes of this file."""
    return sys.modules[__name__]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, of lalia and of the hub."""
    folder = tmp_path / "home"
    monkeypatch.setenv("LALIA_HOME", str(folder))
    return folder


@pytest.fixture
def toy(tmp_path: Path, home: Path) -> Toy:
    return Toy(tmp_path / "toy")
