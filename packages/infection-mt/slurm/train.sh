#!/usr/bin/env bash
# One training; stopped by the time limit, it is queued again and resumes.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   SCRIPT=train_multitask.py CONFIG=configs/multitask_example.yaml OUTPUT=outputs/run1 bash slurm/train.sh
# Further arguments go to the script.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
script="${SCRIPT:?set SCRIPT to a training script, for example train_multitask.py}"
config="${CONFIG:?set CONFIG to a configuration file, for example configs/multitask_example.yaml}"
output="${OUTPUT:?set OUTPUT to the run directory}"
exec "${PYTHON:-python}" -m medshared.launch --name infection-train --gpus 1 --distributed \
  -- "$script" --config "$config" --output "$output" --resume "$@"
