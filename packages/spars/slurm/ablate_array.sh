#!/usr/bin/env bash
# One script of an experiment a task; once all are done, their table. Classifiers that several games share are trained once,
# by the task that comes first.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   FAMILY=window OUTPUT=runs/windows bash slurm/ablate_array.sh --data_dir data/Task03_Liver
# CONFIG is config/ablation.yaml unless set; further arguments go to `spars ablate`.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
family="${FAMILY:?set FAMILY to classifier, threshold or window}"
output="${OUTPUT:?set OUTPUT to the folder of the experiment}"
case "$family" in
  classifier) presets=(ex1_8in ex2_12in ex3_16in ex4_20in ex5_24in) ;;
  threshold) presets=(threshold-0.2 threshold-0.3 threshold-0.4 threshold-0.5 threshold-0.6) ;;
  window) presets=(window-8_8_8 window-16_16_8 window-32_32_16 window-48_48_24 window-64_64_32) ;;
  *) echo "FAMILY: expected classifier, threshold or window, found $family" >&2 && exit 2 ;;
esac
ablate=(-m spars.cli ablate --family "$family" --config "${CONFIG:-config/ablation.yaml}" --output "$output" --resume)
exec "${PYTHON:-python}" -m medshared.launch --name spars-ablate --gpus 1 --items "${presets[@]}" \
  --collect "${ablate[@]}" "$@" -- "${ablate[@]}" --only "{item}" "$@"
