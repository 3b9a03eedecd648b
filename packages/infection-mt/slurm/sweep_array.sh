#!/usr/bin/env bash
# One interval [START_HOUR, x] a task, for each x of HOURS; once all are done, tables and figures of the sweep in OUTPUT.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   HOURS="7 13 19 25" CONFIG=configs/resnet50_baseline.yaml OUTPUT=outputs/sweep bash slurm/sweep_array.sh
# START_HOUR is 1 unless set; further arguments go to analyze_interval_sweep_train.py.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
read -r -a hours <<<"${HOURS:?set HOURS to the ends of the intervals, for example \"7 13 19\"}"
config="${CONFIG:?set CONFIG to a configuration file, for example configs/resnet50_baseline.yaml}"
output="${OUTPUT:?set OUTPUT to the directory of the sweep}"
sweep=(analyze_interval_sweep_train.py --config "$config" --mode train-test --start-hour "${START_HOUR:-1}" \
  --checkpoint-dir "$output/checkpoints")
exec "${PYTHON:-python}" -m medshared.launch --name infection-sweep --gpus 1 --items "${hours[@]}" \
  --collect "${sweep[@]}" --eval-only --save-data --upper-hours "{item}" --output-dir "$output" "$@" \
  -- "${sweep[@]}" --resume --upper-hours "{item}" --output-dir "$output/hour_{item}" "$@"
