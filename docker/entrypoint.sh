#!/bin/sh
# Kernels that the image compiled ahead go into the writable cache, which is a fresh volume in a pod.
set -eu
if [ -n "${NUMBA_CACHE_DIR:-}" ] && [ -d "${KERNELS:-}" ] && [ -w "$NUMBA_CACHE_DIR" ]; then
    cp -R -n "$KERNELS/." "$NUMBA_CACHE_DIR/" || echo "kernels are compiled anew: no room in $NUMBA_CACHE_DIR" >&2
fi
exec odc-stats-gpu "$@"
