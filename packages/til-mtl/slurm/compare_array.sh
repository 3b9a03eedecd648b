#!/usr/bin/env bash
# Multi-task against single-task: all three networks on one fold a task; once all are done, the table with paired intervals.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   OUTPUT=runs/compare bash slurm/compare_array.sh --data_dir data/tiger-patches
# FOLDS is 5 unless set, CONFIG config/mtl.yaml; further arguments go to `til-mtl compare`.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
output="${OUTPUT:?set OUTPUT to the folder of the comparison}"
compare=(-m til_mtl.cli compare --folds "${FOLDS:-5}" --config "${CONFIG:-config/mtl.yaml}" --output "$output" --resume)
exec "${PYTHON:-python}" -m medshared.launch --name til-mtl-compare --gpus 1 --array "${FOLDS:-5}" \
  --collect "${compare[@]}" "$@" -- "${compare[@]}" --only "{number}" "$@"
