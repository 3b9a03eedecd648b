#!/usr/bin/env bash
# MBHSeg's volumes → slices, one share of the cases a task; at the end what failed tasks left undone, and the lists of all.
#   export PARTITION=cpu ACCOUNT= TIME=24:00:00
#   VOLUMES=data/MBHSeg OUTPUT=data bash slurm/prepare_array.sh
# SHARDS is 4 unless set; further arguments go to process_mbhseg.py.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
volumes="${VOLUMES:?set VOLUMES to the folder with train/ and test/}"
output="${OUTPUT:?set OUTPUT to the folder of the slices}"
prepare=(process_mbhseg.py -in "$volumes" -out "$output")
exec "${PYTHON:-python}" -m medshared.launch --name aespa-prepare --cpus 4 --memory 16G --array "${SHARDS:-4}" \
  --leftovers --collect "${prepare[@]}" "$@" -- "${prepare[@]}" -shard "{number}/{count}" "$@"
