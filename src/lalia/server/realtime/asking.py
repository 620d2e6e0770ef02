"""What a client of the Realtime protocol asks for, read from what it sends; and how it is refused."""

import base64
import binascii
import json
from typing import Any

from pydantic import ValidationError

from lalia.errors import LaliaError
from lalia.server.realtime import shapes

__all__ = ["Refused", "decoded", "json_object", "merged", "parsed"]

_WHOLE = {"turn_detection", "format", "transcription", "voice", "noise_reduction"}
"""Settings that are replaced, not merged."""


class Refused(LaliaError):
    """What a client asked for is not done.

    :param code: of the protocol.
    :param param: the field that is wrong.
    """

    def __init__(self, message: str, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


def json_object(text: str) -> dict[str, Any]:
    """
    :raises Refused: it is no JSON object.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused("The event is no JSON. Send one object for each message.", "invalid_json") from None
    if not isinstance(raw, dict):
        raise Refused("The event is no JSON object. Send one object for each message.", "invalid_json")
    return raw


def parsed(raw: dict[str, Any]) -> Any:
    """The event, as one of ``shapes``.

    :raises Refused: it is no event of a client, or not as it must be.
    """
    try:
        if raw.get("type") != "input_audio_buffer.append":
            # Escapes of JSON may stand for half of a character, which no tokenizer reads.
            json.dumps(raw, ensure_ascii=False).encode()
        return shapes.CLIENT_EVENTS.validate_python(raw)
    except UnicodeEncodeError:
        raise Refused("The event has half of a character (a lone surrogate).", "invalid_value") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = [str(x) for x in first["loc"][1:]]
        kind = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}.get(first["type"])
        if first["type"].startswith("union_tag"):
            kind, path = "invalid_event_type", [*path, "type"]
        message = f"{'.'.join(path) or 'The event'}: {first['msg']}."
        raise Refused(message, kind or "invalid_value", ".".join(path) or None) from None
    except RecursionError:
        raise Refused("The event is nested too deep.", "invalid_value") from None


def decoded(data: str, param: str) -> bytes:
    """
    :raises Refused: it is no base64.
    """
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("The audio is no base64.", "invalid_value", param) from None


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """``old`` with what ``new`` says."""
    out = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(old.get(key), dict) and key not in _WHOLE
        out[key] = merged(old[key], value) if both else value
    return out
