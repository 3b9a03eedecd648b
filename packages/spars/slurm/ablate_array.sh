#!/usr/bin/env bash
#SBATCH --job-name=spars-ablate
#SBATCH --output=slurm_LOG/%x_%A_%a.out
#SBATCH --error=slurm_LOG/%x_%A_%a.err
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --gres=gpu:1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# One script of an experiment a job of an array; each writes the table of all that have finished by then. Classifiers that
# several games share are trained once, by the job that comes first.
#   mkdir -p slurm_LOG
#   FAMILY=window OUTPUT=runs/windows sbatch --array=0-4 slurm/ablate_array.sh --data_dir data/Task03_Liver
# Further arguments go to `spars ablate`.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
family="${FAMILY:?set FAMILY to classifier, threshold or window}"
output="${OUTPUT:?set OUTPUT to the folder of the experiment}"
index="${SLURM_ARRAY_TASK_ID:?submit as an array (sbatch --array=0-4), or set SLURM_ARRAY_TASK_ID}"
case "$family" in
  classifier) presets=(ex1_8in ex2_12in ex3_16in ex4_20in ex5_24in) ;;
  threshold) presets=(threshold-0.2 threshold-0.3 threshold-0.4 threshold-0.5 threshold-0.6) ;;
  window) presets=(window-8_8_8 window-16_16_8 window-32_32_16 window-48_48_24 window-64_64_32) ;;
  *) echo "FAMILY must be classifier, threshold or window, found $family" >&2 && exit 2 ;;
esac
preset="${presets[$index]:?SLURM_ARRAY_TASK_ID must be 0 to 4}"

run_resumable -m spars.cli ablate --family "$family" --only "$preset" --config "${CONFIG:-config/ablation.yaml}" \
  --output "$output" --resume "$@"
