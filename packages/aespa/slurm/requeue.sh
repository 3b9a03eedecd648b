#!/usr/bin/env bash
# Shared by the job scripts of this folder: a worker that is warned before the time limit, saves its state and is queued
# again. To be sourced, in the package folder or below SLURM_SUBMIT_DIR.

cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}" || exit 1
mkdir -p slurm_LOG

STOPPED=75 # exit code of a run that a signal stopped after it saved its state
KILLED=138 # exit code of a program that the warning itself ended; its finished parts are kept and reused

# Run one of the package's scripts; queue the job again when it was stopped by the time limit.
run_resumable() {
  local python="${PYTHON:-python}" status=0 worker
  echo "start $(date '+%Y-%m-%d %H:%M:%S') on $(hostname): $*"
  "$python" "$@" &
  worker=$!
  # SLURM warns before the time limit (--signal); the run then saves its state and stops.
  trap 'kill -USR1 "$worker" 2>/dev/null || true' USR1 TERM
  wait "$worker" || status=$?
  while kill -0 "$worker" 2>/dev/null; do
    status=0
    wait "$worker" || status=$?
  done
  echo "end $(date '+%Y-%m-%d %H:%M:%S'), exit code $status"
  if [[ -n "${SLURM_JOB_ID:-}" && ($status -eq $STOPPED || $status -eq $KILLED) ]]; then
    scontrol requeue "$SLURM_JOB_ID"
  fi
  return "$status"
}
