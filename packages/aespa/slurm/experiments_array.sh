#!/usr/bin/env bash
# The original's experiments, one run a task: GROUP main (8, bash_priority.sh), ablations (12, bash_ablation.sh) or all
# (20, bash.sh). Finished runs are left alone, stopped ones are queued again and go on; at the end, whether all are there.
#   export PARTITION=gpu ACCOUNT= TIME=24:00:00
#   GROUP=main bash slurm/experiments_array.sh -data data -sam_ckpt checkpoint/medsam_vit_b.pth
# Further arguments go to `aespa experiments`.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
group="${GROUP:?set GROUP to main, ablations or all}"
case "$group" in
  main) runs=8 ;;
  ablations) runs=12 ;;
  all) runs=20 ;;
  *) echo "GROUP: expected main, ablations or all, found $group" >&2 && exit 2 ;;
esac
exec "${PYTHON:-python}" -m medshared.launch --name aespa-experiment --gpus 1 --array "$runs" \
  --collect -m aespa.cli experiments "$group" "$@" \
  -- -m aespa.cli experiments "$group" -only "{number}" "$@"
