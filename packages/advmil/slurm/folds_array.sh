#!/usr/bin/env bash
# One fold a task, under the folder names of --multi_run; once all are done, their average in OUTPUT.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   CONFIG=config/cfg_nlst.yaml OUTPUT=results-adv/nlst-patch bash slurm/folds_array.sh
# FOLDS is 5 unless set, HANDLER adv; further arguments go to main.py.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
config="${CONFIG:?set CONFIG to a configuration file, for example config/cfg_nlst.yaml}"
output="${OUTPUT:?set OUTPUT to the common part of the output folders}"
exec "${PYTHON:-python}" -m medshared.launch --name advmil-fold --gpus 1 --memory 64G --distributed \
  --array "${FOLDS:-5}" \
  --collect -m advmil.cli evaluate "$output-data_split_seed_{index}" --output "$output" \
  -- main.py --config "$config" --handler "${HANDLER:-adv}" --resume --set "data_split_seed={index}" \
  --output "$output-data_split_seed_{index}" "$@"
