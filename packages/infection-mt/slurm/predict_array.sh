#!/usr/bin/env bash
# A plate with the checkpoints of all folds, one share of the stacks a task; at the end tables, curves and figures of all.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   MODEL_DIR=outputs/cv DATA_DIR=data/plate2 OUTPUT=outputs/plate2 \
#     bash slurm/predict_array.sh --plate-layout mock=a4,b4 moi5=a1,b1
# SHARDS is 4 unless set; further arguments go to validate_on_run2.py.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
model_dir="${MODEL_DIR:?set MODEL_DIR to the directory of the folds}"
data_dir="${DATA_DIR:?set DATA_DIR to the folder of stacks}"
output="${OUTPUT:?set OUTPUT to the directory of the results}"
plate=(validate_on_run2.py --model-dir "$model_dir" --data-dir "$data_dir" --output-dir "$output" --resume)
exec "${PYTHON:-python}" -m medshared.launch --name infection-predict --gpus 1 --array "${SHARDS:-4}" \
  --leftovers --collect "${plate[@]}" "$@" -- "${plate[@]}" --shard "{number}/{count}" "$@"
