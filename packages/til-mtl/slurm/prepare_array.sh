#!/usr/bin/env bash
# The TIGER download → patches, one share of the regions a task; at the end what failed tasks left undone, folders, manifest.
#   export PARTITION=cpu ACCOUNT= TIME=24:00:00
#   TIGER=data/tiger OUTPUT=data/tiger-patches bash slurm/prepare_array.sh --all-folds
# SHARDS is 4 unless set; further arguments go to prepare_tiger.py.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
tiger="${TIGER:?set TIGER to the root of the download}"
output="${OUTPUT:?set OUTPUT to the folder of the patches}"
exec "${PYTHON:-python}" -m medshared.launch --name til-mtl-prepare --cpus 4 --memory 16G --array "${SHARDS:-4}" \
  --leftovers --collect prepare_tiger.py --tiger "$tiger" --out "$output" "$@" \
  -- prepare_tiger.py --tiger "$tiger" --out "$output" --shard "{number}/{count}" "$@"
