#!/usr/bin/env bash
# make_venv.sh PYTHON VENV: an empty virtual environment, or one line that says what is missing.
set -euo pipefail
python=$1 venv=$2

version=$("$python" -c 'import sys; print(sys.version.split()[0]); sys.exit(sys.version_info < (3, 11))' 2>/dev/null) || {
    echo "error: lalia needs Python 3.11 or newer, and $python is ${version:-not there}." \
        "Install one and name it: make PYTHON=python3.12 ..." >&2
    exit 1
}

# Only what was made here is `make clean`'s to remove.
new=true
[ -d "$venv" ] && new=false
echo "Making $venv with Python $version ..."
trap '[ $new = false ] || rm -rf "$venv"' INT TERM
"$python" -m venv "$venv" || {
    [ $new = false ] || rm -rf "$venv"
    echo "error: $python cannot make environments. Install its venv package (on Debian: python3-venv)." >&2
    exit 1
}
[ $new = false ] || touch "$venv/.made"
