#!/bin/sh
# Run a command of this source tree on a machine with PyTorch but without a network, and without installing anything:
#     sh benchmarks/gpu_offline.sh WHEELS COMMAND...
# WHEELS is a folder with the wheels that GPU.md lists. The native kernels are built if there is a C++ compiler, unless BUILD=no.
set -e
root=$(cd "$(dirname "$0")/.." && pwd)
wheels=$1
shift
site=${TMPDIR:-/tmp}/sddpm-site
if [ ! -d "$site" ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$site.new" "$wheels"/*.whl
    mv "$site.new" "$site"
fi
[ "${BUILD:-}" = no ] || ls "$root"/src/sddpm/_native*.so >/dev/null 2>&1 ||
    (cd "$root" && python3 setup.py -q build_ext --inplace >/dev/null 2>&1) || echo "native kernels were not built"
PYTHONPATH="$root/src:$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 exec "$@"
