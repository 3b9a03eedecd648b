#!/usr/bin/env bash
# Volumes → masks and probabilities in their own geometry, one share a task; at the end the rest, and one table of all.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   AGENT=runs/game IMAGES=data/Task03_Liver/imagesTs OUTPUT=runs/predictions bash slurm/predict_array.sh
# SHARDS is 8 unless set; further arguments go to `spars predict`.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
agent="${AGENT:?set AGENT to the run directory of the training}"
images="${IMAGES:?set IMAGES to a volume or a folder of volumes}"
output="${OUTPUT:?set OUTPUT to the folder of the results}"
predict=(-m spars.cli predict "$images" --agent "$agent" --output "$output")
exec "${PYTHON:-python}" -m medshared.launch --name spars-predict --gpus 1 --array "${SHARDS:-8}" \
  --leftovers --collect "${predict[@]}" "$@" -- "${predict[@]}" --shard "{number}/{count}" "$@"
