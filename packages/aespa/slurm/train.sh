#!/usr/bin/env bash
# One training; stopped by the time limit, it is queued again and resumes.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   CONFIG=config/aespa.yaml OUTPUT=runs/aespa bash slurm/train.sh -b 32
# Further arguments go to train.py.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
config="${CONFIG:?set CONFIG to a configuration file, for example config/aespa.yaml}"
output="${OUTPUT:?set OUTPUT to the run directory}"
exec "${PYTHON:-python}" -m medshared.launch --name aespa-train --gpus 1 --distributed \
  -- train.py -config "$config" -output "$output" -resume "$@"
