#!/usr/bin/env bash
# The twelve ablations of SPA. CUDA_VISIBLE_DEVICES chooses the GPU; arguments are passed on to `aespa experiments`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec python -m aespa.cli experiments ablations "$@"
