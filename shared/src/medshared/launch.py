"""One way to run a command on a cluster: ``python -m medshared.launch``, which every wrapper in ``slurm/`` calls."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from medshared.launch_plan import (
    LOG_FOLDER,
    Call,
    LaunchError,
    NumberReader,
    Plan,
    interpreter,
    parse,
    record_folder,
)
from medshared.launch_records import COLLECT, describe, forget_earlier, task_states
from medshared.launch_runs import WARNING_S, Job, run_here

logger = logging.getLogger(__name__)

REQUIRED = {
    "PARTITION": "set PARTITION to a partition of the cluster (sinfo lists them), or to nothing for its default",
    "ACCOUNT": "set ACCOUNT to the account that is charged, or to nothing for your default",
    "TIME": "set TIME to the time after which a job is queued again, for example 24:00:00",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit, run or tell the state; returns the exit code."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s | %(levelname)s | %(message)s", stream=sys.stderr, force=True
    )
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["status"]:
            return status(given[1:])
        return launch(parse(given, os.environ), os.environ)
    except (LaunchError, OSError, ValueError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, LaunchError) else 1


def launch(call: Call, environment: Mapping[str, str]) -> int:
    """Submit, run inside a job, or run here, as the environment says.

    Args:
        call: The parsed command line.
        environment: Of the process.
    """
    plan, submit = call.plan, environment.get("SUBMIT", "").lower()
    if submit not in ("", "yes", "no"):
        raise LaunchError(f"SUBMIT: expected yes, no or nothing, found {submit!r}")
    if call.is_job or (environment.get("SLURM_JOB_ID") and submit != "yes"):
        if call.dry_run:
            return _show(plan, environment)
        return Job(plan, environment).run(call.collecting)
    if submit == "no" or (shutil.which("sbatch") is None and not call.dry_run):
        if submit == "yes":
            raise LaunchError("SUBMIT=yes: sbatch is not on PATH")
        if call.dry_run:
            return _show(plan, environment)
        if plan.distributed and NumberReader(environment)("TASKS", 1, 1) > 1:
            raise LaunchError(
                "TASKS: several processes without SLURM are started by torchrun --nproc-per-node"
            )
        return run_here(plan, environment)
    return submit_plan(call, environment)


def submit_plan(call: Call, environment: Mapping[str, str]) -> int:
    """Submit the tasks and the collecting job; their numbers go to standard output, one a line.

    Args:
        call: The parsed command line.
        environment: Of the process.

    Raises:
        LaunchError: naming all that is missing in the environment, or what sbatch refused.
    """
    plan = call.plan
    options = _options(plan, environment)
    logs = Path(LOG_FOLDER).resolve()
    log = str(logs / ("%x_%A_%a" if plan.items is not None else "%x_%j"))
    tasks = [*options, *_array(plan, environment), f"--output={log}.out", f"--error={log}.err"]
    script = _script(call, environment)
    if call.dry_run:
        sys.stdout.write(shlex.join(["sbatch", *tasks]) + "\n")
        if plan.collect:
            collecting = _collecting(plan, options, "JOB", logs)
            sys.stdout.write(shlex.join(["sbatch", *collecting]) + "\n")
        return _show(plan, environment)
    # SLURM writes no log into a folder that does not exist, and does not say so.
    logs.mkdir(exist_ok=True)
    started = time.time()
    job = _sbatch(tasks, script)
    sys.stdout.write(f"{job}\n")
    folder = record_folder(plan.name, job)
    forget_earlier(folder, started)
    known = {"job": job, "count": plan.count, "log": log.replace("%x", plan.name).replace("%A", job) + ".err"}
    known["log"] = known["log"].replace("%j", job)
    collecting_job = None
    if plan.collect:
        collecting_job = _sbatch(_collecting(plan, options, job, logs), _script(call, environment, job))
        sys.stdout.write(f"{collecting_job}\n")
        known["collect_log"] = str(logs / f"{plan.name}-{COLLECT}_{collecting_job}.err")
    describe(folder, **known, collecting_job=collecting_job, arguments=list(call.arguments))
    logger.info("logs in %s; python -m medshared.launch status %s", LOG_FOLDER, folder)
    return 0


def _options(plan: Plan, environment: Mapping[str, str]) -> list[str]:
    number = NumberReader(environment)
    gpus = plan.gpus
    tasks = number("TASKS", max(1, gpus) if plan.distributed else 1, 1)
    nodes, warning_s = number("NODES", 1, 1), number("WARNING", WARNING_S, 1)
    problems = number.problems
    problems += [text for name, text in REQUIRED.items() if name not in environment]
    if environment.get("TIME") == "":
        problems.append(REQUIRED["TIME"])
    if not plan.distributed and max(tasks, nodes) > 1:
        problems.append(f"TASKS, NODES: {plan.name} runs as one process; leave them unset")
    if (seconds := _seconds(environment.get("TIME", ""))) is not None and seconds <= warning_s:
        problems.append(
            f"TIME: {environment['TIME']} is no longer than the warning before its end, WARNING={warning_s} seconds"
        )
    number.check()
    chosen = [f"--{name.lower()}={environment[name]}" for name in REQUIRED if environment[name]]
    return [
        "--parsable",
        f"--job-name={plan.name}",
        *chosen,
        f"--nodes={nodes}",
        f"--ntasks-per-node={tasks}",
        f"--cpus-per-task={plan.cpus}",
        f"--mem={plan.memory}",
        *([f"--gres=gpu:{gpus}"] if gpus else []),
        f"--signal=B:USR1@{warning_s}",
        "--requeue",
        "--open-mode=append",
        f"--chdir={Path.cwd()}",
        *shlex.split(environment.get("SBATCH_EXTRA", "")),
    ]


def _seconds(time: str) -> int | None:
    """Return a time as sbatch reads it, in seconds; ``None`` for what is none, which sbatch will say."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if match is None:
        return None
    days, first, second, third = (int(each or 0) for each in match.groups())
    if match[1]:  # days-hours:minutes:seconds
        return ((days * 24 + first) * 60 + second) * 60 + third
    if match[4]:  # hours:minutes:seconds
        return (first * 60 + second) * 60 + third
    return first * 60 + second  # minutes:seconds


def _array(plan: Plan, environment: Mapping[str, str]) -> list[str]:
    if plan.items is None:
        return []
    number = NumberReader(environment)
    most = number("MAX_TASKS", 0, 1)
    number.check()
    return [f"--array=0-{plan.count - 1}" + (f"%{most}" if most else "")]


def _collecting(plan: Plan, options: Sequence[str], job: str, logs: Path) -> list[str]:
    """Return the options of the collecting job: after all tasks, however they ended, so that it can tell."""
    kept = [option for option in options if plan.leftovers or not option.startswith("--gres=")]
    kept = [
        {
            "--job-name": f"--job-name={plan.name}-{COLLECT}",
            "--ntasks-per-node": "--ntasks-per-node=1",
        }.get(option.partition("=")[0], "--nodes=1" if option.startswith("--nodes=") else option)
        for option in kept
    ]
    log = logs / "%x_%j"
    return [
        *kept,
        f"--dependency=afterany:{job}",
        "--kill-on-invalid-dep=no",
        f"--output={log}.out",
        f"--error={log}.err",
    ]


def _script(call: Call, environment: Mapping[str, str], job: str | None = None) -> str:
    """Return a job's script: this very call, made inside the job."""
    own = ["--in-job", *(["--collecting", job] if job else [])]
    command = [interpreter(environment), "-m", "medshared.launch", *own, *call.arguments]
    # exec: SLURM's warning goes to the shell of the job, which the launcher thus becomes.
    return f"#!/usr/bin/env bash\nexec {shlex.join(command)}\n"


def _sbatch(options: Sequence[str], script: str) -> str:
    done = subprocess.run(["sbatch", *options], input=script, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LaunchError(f"sbatch refused {shlex.join(options)}: {done.stderr.strip()}")
    return done.stdout.strip().partition(";")[0]  # with several clusters, the cluster's name follows


def _show(plan: Plan, environment: Mapping[str, str]) -> int:
    python = interpreter(environment)
    for index in range(plan.count):
        sys.stdout.write(shlex.join([python, *plan.task_command(index)]) + "\n")
    if plan.collect:
        sys.stdout.write(shlex.join([python, *plan.collect_command()]) + "\n")
    return 0


def status(arguments: Sequence[str]) -> int:
    """Write one line a task; exit code 1 unless every task is done or on its way.

    Args:
        arguments: The job's folder.
    """
    if len(arguments) != 1:
        raise LaunchError(f"status: expected the folder of one job, such as {LOG_FOLDER}/NAME-17")
    states = task_states(Path(arguments[0]))
    for state in states:
        sys.stdout.write(f"{state.task}\t{state.state}\t{state.starts}\t{state.message}\t{state.log}\n")
    return 0 if all(state.is_done or state.is_open for state in states) else 1


if __name__ == "__main__":
    sys.exit(main())
