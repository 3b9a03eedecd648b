#!/usr/bin/env bash
# The eight main runs: SPA and AESPA, LIDC and MBHSeg-Binary, 128 and 256 px. Arguments are passed on to `aespa experiments`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec python -m aespa.cli experiments main "$@"
