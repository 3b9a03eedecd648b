#!/usr/bin/env bash
# A checkpoint → tables, summary and a page.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   CONFIG=config/aespa.yaml CHECKPOINT=runs/aespa/checkpoints/best.pt OUTPUT=runs/aespa-test \
#     bash slurm/evaluate.sh
# Further arguments go to val.py.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
config="${CONFIG:?set CONFIG to a configuration file, for example config/aespa.yaml}"
checkpoint="${CHECKPOINT:?set CHECKPOINT to the trained network}"
output="${OUTPUT:?set OUTPUT to the folder of the results}"
exec "${PYTHON:-python}" -m medshared.launch --name aespa-evaluate --gpus 1 \
  -- val.py -config "$config" -weights "$checkpoint" -output "$output" "$@"
