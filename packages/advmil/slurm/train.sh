#!/usr/bin/env bash
# One run, or all runs of a grid one after the other; stopped by the time limit, it is queued again and resumes.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   CONFIG=config/cfg_nlst.yaml bash slurm/train.sh [further flags of main.py, such as --multi_run]
# HANDLER is adv unless set (base: baselines).
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
config="${CONFIG:?set CONFIG to a configuration file, for example config/cfg_nlst.yaml}"
exec "${PYTHON:-python}" -m medshared.launch --name advmil-train --gpus 1 --memory 64G --distributed \
  -- main.py --config "$config" --handler "${HANDLER:-adv}" --resume "$@"
