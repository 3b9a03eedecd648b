#!/usr/bin/env bash
# Slides → features, one share of the slides a task; at the end what failed tasks left undone, and the report of all.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   SLIDES=data/nlst/slides OUTPUT=data/nlst/processed bash slurm/prepare_array.sh --weights resnet50.pth
# SHARDS is 8 unless set; further arguments go to `advmil prepare`.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
slides="${SLIDES:?set SLIDES to the folder of slides}"
output="${OUTPUT:?set OUTPUT to the folder of tiles and features}"
exec "${PYTHON:-python}" -m medshared.launch --name advmil-prepare --gpus 1 --memory 64G --array "${SHARDS:-8}" \
  --leftovers --collect -m advmil.cli prepare "$slides" --output "$output" "$@" \
  -- -m advmil.cli prepare "$slides" --output "$output" --shard "{number}/{count}" "$@"
