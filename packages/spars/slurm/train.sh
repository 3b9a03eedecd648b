#!/usr/bin/env bash
# One script; stopped by the time limit, it is queued again and resumes.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   SCRIPT=net_global.py CONFIG=config/classifier.yaml OUTPUT=runs/classifier bash slurm/train.sh
#   SCRIPT=best_RL.py CONFIG=config/game.yaml OUTPUT=runs/game bash slurm/train.sh
# SCRIPT is best_RL.py unless set; further arguments go to it. TASKS, NODES: several processes, for classifiers alone.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
config="${CONFIG:?set CONFIG to a configuration file, for example config/game.yaml}"
output="${OUTPUT:?set OUTPUT to the run directory}"
script="${SCRIPT:-best_RL.py}"
together=()
case "$script" in
  *net_*.py | *classifier_experiments/*) together=(--distributed) ;;  # the game is played by one process
esac
exec "${PYTHON:-python}" -m medshared.launch --name spars-train --gpus 1 "${together[@]}" \
  -- "$script" --config "$config" --output "$output" --resume "$@"
