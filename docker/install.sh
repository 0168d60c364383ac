#!/bin/sh
# Install the package with extras, at the versions and hashes of the lock:
#   sh docker/install.sh PYTHON EXTRA...
# The lock covers every extra; uv picks from it what these extras need.
set -eu
python=$1
shift
uv=$(grep -oE '^uv==[0-9.]+' requirements.lock)
"$python" -m pip install -q "$uv"

bin=$(dirname "$python")
"$bin/uv" pip compile -q --generate-hashes --constraint requirements.lock --python "$python" \
    $(for e in "$@"; do printf -- '--extra %s ' "$e"; done) pyproject.toml -o /tmp/wanted.lock
"$bin/uv" pip install -q --python "$python" --require-hashes -r /tmp/wanted.lock
"$bin/uv" pip install -q --python "$python" --no-deps .
"$python" -c "import odc_stats_gpu"
"$python" -m pip uninstall -q -y uv
