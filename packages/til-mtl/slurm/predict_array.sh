#!/usr/bin/env bash
# Slides → maps, cells and TIL scores, one share of the slides a task; at the end the rest, and one table of all scores.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   CHECKPOINT=runs/mtl/checkpoints/best.pt SLIDES=data/wsitils/images OUTPUT=runs/scores \
#     bash slurm/predict_array.sh
# SHARDS is 8 unless set; further arguments go to TIL_prediction/predict.py.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
checkpoint="${CHECKPOINT:?set CHECKPOINT to the trained network}"
slides="${SLIDES:?set SLIDES to the folder of slides}"
output="${OUTPUT:?set OUTPUT to the folder of the results}"
predict=(TIL_prediction/predict.py --checkpoint "$checkpoint" --slides "$slides" --out "$output")
exec "${PYTHON:-python}" -m medshared.launch --name til-mtl-predict --gpus 1 --array "${SHARDS:-8}" \
  --leftovers --collect "${predict[@]}" "$@" -- "${predict[@]}" --shard "{number}/{count}" "$@"
