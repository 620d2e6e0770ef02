"""SentencePiece's ``.model`` files as a Hugging Face tokenizer, without SentencePiece.

The file is a protocol buffer, ``ModelProto``: field 1, repeated, has a piece (1: text, 2: score, 3: type), field 2 how
it was trained (3: kind of model, 35: byte fallback, 40: id of the unknown piece), field 3 how text is normalised
(2: a compiled table of characters, 3: whether a space is put before the text, 4: whether spaces are thinned out).

Source: ``src/sentencepiece_model.proto`` of google/sentencepiece (0.2).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lalia.errors import WeightsError

__all__ = ["read"]

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How a space is written in a piece."""

_UNIGRAM = 1
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
"""Types of pieces; all but the first and the last of these are never found in a text."""

_NEVER = -1e6
"""A score below that of every spelling by other pieces."""


def read(path: Path) -> Any:
    """The tokenizer of a unigram model (arXiv:1804.10959).

    :raises WeightsError: the file is damaged, or holds another kind of model.
    """
    from transformers import PreTrainedTokenizerFast

    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    try:
        fields = list(_fields(path.read_bytes()))
        pieces = [dict(_fields(value)) for number, value in fields if number == 1]
        trained, normal = (dict(_fields(next((v for n, v in fields if n == at), b""))) for at in (2, 3))
        # A record of the file may leave out what has its default value.
        kinds = {p[1].decode(): p.get(3, _NORMAL) for p in pieces}
        scores = [struct.unpack("<f", p.get(2, bytes(4)))[0] for p in pieces]
        vocabulary = [
            (text, score if kind in (_NORMAL, _USER_DEFINED) else _NEVER)
            for (text, kind), score in zip(kinds.items(), scores, strict=True)
        ]
        unknown, charsmap = trained.get(40, 0), normal.get(2, b"")
        if trained.get(3, _UNIGRAM) != _UNIGRAM:
            raise WeightsError(f"{path} is no unigram model of SentencePiece. Give a tokenizer.json of it instead.")
        model = models.Unigram(vocabulary, unknown, byte_fallback=bool(trained.get(35, 0)))
        steps: list[Any] = [normalizers.Precompiled(charsmap)] if charsmap else []
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}). Fetch it again.") from None
    except WeightsError:
        raise
    except Exception as error:  # noqa: BLE001  what a damaged file can raise is not part of any interface
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise WeightsError(f"{path} is no model of SentencePiece, or damaged ({reason}). Fetch it again.") from None
    prefixed, thinned = bool(normal.get(3, 1)), bool(normal.get(4, 1))
    if thinned:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    # What begins a text is told by its place in it, which it loses with the spaces before it.
    prepend = ("always" if thinned else "first") if prefixed else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme=prepend, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([decoders.Strip(" ", 1, 0)] if prefixed else [])
    )
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t, k in kinds.items() if k == _CONTROL])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t, k in kinds.items() if k == _USER_DEFINED])
    name = next((text for text, kind in kinds.items() if kind == _UNKNOWN), None)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=name)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a message: an int, or bytes of what is longer.

    :raises ValueError: the message is cut short.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(data, at)
        else:
            match kind:
                case 1:
                    size = 8
                case 2:
                    size, at = _varint(data, at)
                case 5:
                    size = 4
                case _:
                    raise ValueError(f"byte {at} begins no field")
            value, at = data[at : at + size], at + size
        if at > len(data):
            raise ValueError(f"it ends at byte {len(data)}")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits to a byte, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(data):
            raise ValueError(f"it ends at byte {len(data)}")
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
