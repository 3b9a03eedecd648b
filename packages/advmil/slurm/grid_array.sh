#!/usr/bin/env bash
# One run of a grid a task: each combination of the keys that hold lists; once all are done, summary.csv and .json.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   CONFIG=config/cfg_nlst.yaml bash slurm/grid_array.sh [further flags of main.py]
# HANDLER is adv unless set (base: baselines).
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
config="${CONFIG:?set CONFIG to a configuration file, for example config/cfg_nlst.yaml}"
grid=(main.py --config "$config" --handler "${HANDLER:-adv}" --multi_run)
runs="$("${PYTHON:-python}" "${grid[@]}" --list "$@")"
exec "${PYTHON:-python}" -m medshared.launch --name advmil-grid --gpus 1 --memory 64G --distributed \
  --array "$(wc -l <<<"$runs")" \
  --collect "${grid[@]}" --resume "$@" -- "${grid[@]}" --resume --only "{number}" "$@"
