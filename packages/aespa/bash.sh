#!/usr/bin/env bash
# The original's runs on LIDC and MBHSeg-Binary: SPA and AESPA at 128 and 256 px, and the ablations of SPA. Runs that are
# finished are left alone, stopped ones go on. `aespa experiments` lists them; arguments are passed on (-dry_run, -data, …).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec python -m aespa.cli experiments all "$@"
