#!/bin/sh
# How well a textless model resynthesizes held-out speech, and whether it prefers speech as it was spoken.
#
#   runs/evaluate-mini-gslm.sh MODEL MANIFEST OUT.json [VOICE] [PART...]
#
# MODEL     a bundled name or the directory of a model
# MANIFEST  JSON Lines of utterances by speakers whom the model never heard
# OUT.json  the result; the sounds that were made go to the folder OUT beside it
# VOICE     a voice of the vocoder, by name or number; "-" for its own choice
# PART      resynthesis, pairs; both when not given
#
# What the recognisers heard is kept in TRANSCRIPTS (a folder; OUT.transcripts when not set), so that a second run,
# or another model on the same speech, asks them for what is new only.
set -eu
if [ "$#" -lt 3 ]; then
    sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$here/src${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-$here/.venv/bin/python}" - "$@" <<'PYTHON'
import os
import sys
from pathlib import Path

import lalia
from lalia.data import Manifest
from lalia.errors import LaliaError
from lalia.evaluation import Remembered, Whisper, evaluate_gslm, table
from lalia.evaluation.gslm import PARTS
from lalia.files import sha256
from lalia.model import find

name, manifest, out, voice, *parts = [*sys.argv[1:], "-"] if len(sys.argv) == 4 else sys.argv[1:]
transcripts = os.environ.get("TRANSCRIPTS") or Path(out).with_suffix(".transcripts")


def say(stage: str, done: int, total: int) -> None:
    if done == total or done % 16 == 0:
        print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)


try:
    judge, second = (
        Remembered(Whisper(w), transcripts, progress=lambda done, total, w=w: say(w, done, total))
        for w in ("whisper-base", "whisper-tiny.en")
    )
    result = evaluate_gslm(
        lalia.load(name),
        Manifest.load(manifest),
        out,
        name=Path(name).name,
        identity=sha256(find(name) / "model.safetensors"),
        judge=judge,
        second=second,
        parts=parts or PARTS,
        voice=None if voice == "-" else int(voice) if voice.isdigit() else voice,
        progress=say,
    )
except LaliaError as error:
    sys.exit(f"error: {error}")
print(table(result))
PYTHON
