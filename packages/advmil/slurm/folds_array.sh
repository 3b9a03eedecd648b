#!/usr/bin/env bash
#SBATCH --job-name=advmil-fold
#SBATCH --output=slurm_LOG/%x_%A_%a.out
#SBATCH --error=slurm_LOG/%x_%A_%a.err
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --gres=gpu:1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# One fold a job of an array, under the folder names of --multi_run; the job that finds all FOLDS finished averages them.
#   mkdir -p slurm_LOG
#   CONFIG=config/cfg_nlst.yaml HANDLER=adv OUTPUT=results-adv/nlst-patch sbatch --array=0-4 slurm/folds_array.sh
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
config="${CONFIG:?set CONFIG to a configuration file, for example config/cfg_nlst.yaml}"
output="${OUTPUT:?set OUTPUT to the common part of the output folders}"
fold="${SLURM_ARRAY_TASK_ID:?submit as an array (sbatch --array=0-4), or set SLURM_ARRAY_TASK_ID}"

run_resumable main.py --config "$config" --handler "${HANDLER:-adv}" --resume \
  --set "data_split_seed=$fold" --output "$output-data_split_seed_$fold" "$@"

folders=()
for ((k = 0; k < ${FOLDS:-5}; k++)); do
  [[ -f "$output-data_split_seed_$k/results.json" ]] || exit 0
  folders+=("$output-data_split_seed_$k")
done
"${PYTHON:-python}" -m advmil.cli evaluate "${folders[@]}" --output "$output"
