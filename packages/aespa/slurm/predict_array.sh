#!/usr/bin/env bash
# Images and volumes → masks, probabilities and entropy, one share a task; at the end the rest, and one table of all.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   CHECKPOINT=runs/aespa/checkpoints/best.pt IMAGES=data/ct OUTPUT=runs/masks bash slurm/predict_array.sh
# SHARDS is 8 unless set; further arguments go to predict.py.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
checkpoint="${CHECKPOINT:?set CHECKPOINT to the trained network}"
images="${IMAGES:?set IMAGES to an image, a volume or a folder of them}"
output="${OUTPUT:?set OUTPUT to the folder of the results}"
predict=(predict.py "$images" -weights "$checkpoint" -output "$output")
exec "${PYTHON:-python}" -m medshared.launch --name aespa-predict --gpus 1 --array "${SHARDS:-8}" \
  --leftovers --collect "${predict[@]}" "$@" -- "${predict[@]}" -shard "{number}/{count}" "$@"
