#!/usr/bin/env bash
# One fold a task; once all are done, the summary over folds.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   CONFIG=configs/multitask_example.yaml OUTPUT=outputs/cv bash slurm/folds_array.sh
# FOLDS is 5 unless set, SCRIPT train_multitask_cv.py (train_regression_cv.py takes the same flags).
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
config="${CONFIG:?set CONFIG to a configuration file, for example configs/multitask_example.yaml}"
output="${OUTPUT:?set OUTPUT to the directory of all folds}"
folds=("${SCRIPT:-train_multitask_cv.py}" --config "$config" --num-folds "${FOLDS:-5}" --output "$output" --resume)
exec "${PYTHON:-python}" -m medshared.launch --name infection-fold --gpus 1 --distributed --array "${FOLDS:-5}" \
  --collect "${folds[@]}" "$@" -- "${folds[@]}" --fold "{number}" "$@"
