#!/bin/sh
# Trains the bundled codec on recordings and measures it on speakers whom it never heard.
#
#   runs/mini-codec.sh RECORDINGS WORK
#
# RECORDINGS  a folder of speech by many speakers; of mini-codec, 251 utterances of LibriSpeech
# WORK        a folder for the runs; started again, the work goes on where it stopped
#
# On two CPU cores each of the two runs takes about an hour.
set -eu
if [ "$#" -ne 2 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")/.." && pwd)
PATH="$here/.venv/bin:$PATH"
data=$1
work=$2
mkdir -p "$work"

# Spectra alone: the discriminators would join after the last step.
[ -f "$work/first/recipe.json" ] || lalia fit-codec "$data" -o "$work/first" --steps 6000 --resume \
    --set trainer.min_lr_ratio=0.8 --set task.gan.warmup_steps=6000
# To a small learning rate, at last with small discriminators.
[ -f "$work/codec/recipe.json" ] || lalia fit-codec "$data" -o "$work/codec" --init "$work/first" --steps 5200 --resume \
    --set trainer.learning_rate=6e-4 --set trainer.min_lr_ratio=0.05 --set trainer.warmup_steps=50 \
    --set task.gan.warmup_steps=3200 --set task.gan.judged_frames=16 --set task.gan.discriminators.0.channels=8

export PYTHONPATH="$here/src${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-$here/.venv/bin/python}
"$python" "$here/runs/mini-codec/export.py" "$work/codec" "$work/export"
"$python" "$here/runs/mini-codec/evaluate.py" "$work/export" "$data" "$work/evaluation.json"
