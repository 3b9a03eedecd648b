#!/usr/bin/env bash
# One network; stopped by the time limit, it is queued again and resumes.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   CONFIG=config/mtl.yaml OUTPUT=runs/mtl bash slurm/train.sh --data_dir data/tiger-patches
# SCRIPT is MTL/main.py unless set; further arguments go to it.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
config="${CONFIG:?set CONFIG to a configuration file, for example config/mtl.yaml}"
output="${OUTPUT:?set OUTPUT to the run directory}"
exec "${PYTHON:-python}" -m medshared.launch --name til-mtl-train --gpus 1 --distributed \
  -- "${SCRIPT:-MTL/main.py}" --config "$config" --output "$output" --resume "$@"
