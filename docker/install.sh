#!/bin/sh
# Install the package with extras, at the versions and hashes of the lock:
#   sh docker/install.sh PYTHON EXTRA...
# The lock covers every extra; uv says which of its packages these extras need.
set -eu
python=$1
shift
bin=$(dirname "$python")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# the installer itself, hash checked like everything else
pick() { # NAMES LOCK: entries of a lock, hashes included
    awk 'NR == FNR { split($0, part, /[=<>; ]/); wanted[part[1]] = 1; next }
         /^[A-Za-z0-9]/ { split($0, part, "=="); on = part[1] in wanted }
         on && !/^ *#/' "$1" "$2"
}
echo uv > "$work/uv.names"
pick "$work/uv.names" requirements.lock > "$work/uv.lock"
"$python" -m pip install -q --require-hashes -r "$work/uv.lock"

extras=$(for extra in "$@"; do printf -- '--extra %s ' "$extra"; done)
# shellcheck disable=SC2086 # one word per option
"$bin/uv" pip compile -q --no-header --no-annotate --constraint requirements.lock \
    --python "$python" $extras pyproject.toml -o "$work/names"
pick "$work/names" requirements.lock > "$work/wanted.lock"
"$bin/uv" pip install -q --python "$python" --require-hashes -r "$work/wanted.lock"
"$bin/uv" pip install -q --python "$python" --no-deps --build-constraint docker/build.lock .
"$bin/uv" pip check -q --python "$python"
"$python" -c "import odc_stats_gpu"
"$python" -m pip uninstall -q -y uv

# Numba keeps compiled kernels by the time of their source, which layers of an image round to seconds
home=$("$python" -c "import odc_stats_gpu; print(odc_stats_gpu.__path__[0])")
find "$home" -name '*.py' -exec touch -d @"${SOURCE_DATE_EPOCH:-0}" {} +
find "$home" -name __pycache__ -prune -exec rm -rf {} +
"$python" -m compileall -q "$home"
