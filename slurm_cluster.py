"""A real one-node SLURM cluster on this machine's loopback, for as long as a block or a command runs.

    python slurm_cluster.py                 # until Ctrl-C; prints what to export
    python slurm_cluster.py sinfo           # for the time of one command

Everything lies in a folder of its own: configuration, key, sockets, state and logs; the ports are free ones. A SLURM
that the machine already has is not touched: its files in /etc are neither read nor written.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "srun")
PACKAGES = ("slurm-wlm", "munge")
NODE = "localhost"
CPUS, MEMORY_MB, GPUS = 64, 262144, 16  # declared, not there: tests share what the machine has
START_S, STOP_S = 30.0, 15.0

# Timers are short for the tests' sake: a requeued job waits for cred_expire, a killed one for KillWait.
CONFIGURATION = """\
ClusterName=medpapers
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1024
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,bf_interval=2,sched_interval=2,sched_min_interval=10000
GresTypes=gpu
JobRequeue=1
MinJobAge=3600
KillWait=5
InactiveLimit=0
ReturnToService=2
SlurmdParameters=config_overrides
SlurmctldParameters=idle_on_node_suspend
PrologFlags=NoHold
NodeName={node} NodeAddr=127.0.0.1 Port={node_port} CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=gpu Nodes={node} Default=YES MaxTime=INFINITE State=UP
PartitionName=cpu Nodes={node} MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """Return the programs of a cluster that this machine lacks."""
    return [name for name in PROGRAMS if _program(name) is None]


def install() -> None:
    """Install Debian's SLURM and munge where they are missing.

    Raises:
        RuntimeError: saying what to install, for another user than root or a system without apt.
    """
    missing = missing_programs()
    if not missing:
        return
    command = f"apt-get install {' '.join(PACKAGES)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(
            f"{', '.join(missing)} not found: install SLURM and munge first, as root: {command}"
        )
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        subprocess.run(["apt-get", "--quiet", *arguments], check=True, env=quiet)


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        folder: Its files.
        configuration: Its slurm.conf; ``SLURM_CONF`` of every SLURM command.
    """

    folder: Path
    configuration: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make SLURM's commands use this cluster."""
        return {"SLURM_CONF": str(self.configuration), "MEDPAPERS_SLURM": str(self.configuration)}


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _write_files(folder: Path) -> Path:
    import pwd

    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    folder.chmod(0o755)
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    controller_port, node_port = _free_ports(2)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder,
            node=NODE,
            user=pwd.getpwuid(os.geteuid()).pw_name,
            controller_port=controller_port,
            node_port=node_port,
            cpus=CPUS,
            memory=MEMORY_MB,
            gpus=GPUS,
        )
    )
    (folder / "gpus").mkdir()
    for number in range(GPUS):
        (folder / "gpus" / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"NodeName={NODE} Name=gpu File={folder}/gpus/gpu[0-{GPUS - 1}]\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    return configuration


def _start(
    name: str, arguments: Sequence[str], folder: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    program = _program(name)
    if program is None:
        raise RuntimeError(f"{name} not found: install SLURM and munge ({' '.join(PACKAGES)})")
    # A session of its own: Ctrl-C is for the tests, which still need the cluster to clean up.
    with (folder / f"{name}.output").open("wb") as output:
        return subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _await_idle(cluster: Cluster, daemons: dict[str, subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + START_S
    environment = {**os.environ, **cluster.environment}
    found = ""
    while time.monotonic() < deadline:
        for name, process in daemons.items():
            if process.poll() is not None:
                raise RuntimeError(
                    f"{name} ended with {process.returncode}:\n{_last_lines(cluster.folder, name)}"
                )
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=START_S,
        )
        found = done.stdout.strip() or done.stderr.strip()
        if done.returncode == 0 and set(done.stdout.split()) == {"idle"}:
            return
        time.sleep(0.2)
    logs = "\n".join(_last_lines(cluster.folder, name) for name in daemons)
    raise RuntimeError(f"the node is not idle after {START_S:.0f} s but {found!r}:\n{logs}")


def _last_lines(folder: Path, name: str, count: int = 20) -> str:
    lines: list[str] = []
    for file in (folder / f"{name}.log", folder / f"{name}.output"):
        if file.exists():
            lines += [f"--- {file}", *file.read_text(errors="replace").splitlines()[-count:]]
    return "\n".join(lines)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_jobs(cluster: Cluster) -> None:
    """Cancel what still runs, since the daemons do not take running jobs with them."""
    environment = {**os.environ, **cluster.environment}
    deadline = time.monotonic() + STOP_S
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        while time.monotonic() < deadline:
            left = subprocess.run(
                ["squeue", "--noheader", "--format=%i"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=STOP_S,
            )
            if left.returncode != 0 or not left.stdout.split():
                return
            subprocess.run(
                ["scancel", *left.stdout.split()], env=environment, capture_output=True, timeout=STOP_S
            )
            time.sleep(0.5)


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Start a cluster, wait until its node is idle, and stop all of it when the block ends, however it ends.

    Yields:
        The cluster.

    Raises:
        RuntimeError: when a program is missing or a daemon does not start, with the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        cluster = Cluster(folder, _write_files(folder))
        environment = {**os.environ, **cluster.environment}
        munge = folder / "munge"
        files = [
            f"--{option}={munge / option.removesuffix('-file')}"
            for option in ("key-file", "log-file", "pid-file", "seed-file")
        ]
        daemons: dict[str, subprocess.Popen[bytes]] = {}
        try:
            daemons["munged"] = _start(
                "munged", ["--foreground", f"--socket={munge}/socket", *files], folder, environment
            )
            _await_file(munge / "socket", daemons["munged"], folder)
            configuration = str(cluster.configuration)
            daemons["slurmctld"] = _start("slurmctld", ["-D", "-i", "-f", configuration], folder, environment)
            daemons["slurmd"] = _start("slurmd", ["-D", "-N", NODE, "-f", configuration], folder, environment)
            _await_idle(cluster, daemons)
            yield cluster
        finally:
            if "slurmd" in daemons:
                _end_jobs(cluster)
            for process in reversed(daemons.values()):
                _stop(process)


def _await_file(path: Path, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"munged did not start:\n{_last_lines(folder, 'munged')}")
        time.sleep(0.05)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, or wait for Ctrl-C, beside a cluster."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--install", action="store_true", help="install slurm-wlm and munge first if they are missing"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="to run; without one, wait for Ctrl-C")
    chosen = parser.parse_args(arguments)
    # SIGTERM as Ctrl-C: what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        if chosen.install:
            install()
        with running_cluster() as cluster:
            if chosen.command:
                return subprocess.run(
                    chosen.command, env={**os.environ, **cluster.environment}, check=False
                ).returncode
            for name, value in cluster.environment.items():
                sys.stdout.write(f"export {name}={value}\n")
            sys.stdout.flush()
            signal.pause()
    except KeyboardInterrupt:
        return 130
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
