"""A real SLURM with emulated nodes on this machine: munged, slurmctld and a slurmd for each node, in one folder.

Nothing outside the folder is read or written, no service is started, and all daemons end with the block.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo", "squeue", "scancel")
_START_S, _END_S = 20.0, 10.0
_CONFIG = """\
ClusterName=emulated
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
# a job that is queued again starts when its old credentials have expired: after 120 s by default
AuthInfo=socket={folder}/munge.sock,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=100000,batch_sched_delay=0
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
KillWait=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
{nodes}
PartitionName=main Nodes=ALL Default=YES OverSubscribe=YES MaxTime=INFINITE State=UP
"""
_NODE = "NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=4000 State=UNKNOWN"


def reason_against_slurm() -> str:
    """Say why SLURM cannot be emulated here; "" where it can."""
    if os.geteuid() != 0:
        return "emulating SLURM's nodes needs root"
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(absent)} not found (Debian's packages slurm-wlm and munge)" if absent else ""


@contextmanager
def slurm_cluster(folder: Path, nodes: int = 4) -> Iterator[dict[str, str]]:
    """Run a cluster with nodes n1, n2, ... of four cores each; gives the environment in which its commands work."""
    folder.mkdir()
    (folder / "state").mkdir()
    host, ports = socket.gethostname(), _free_ports(nodes + 1)
    lines = [_NODE.format(number=number, host=host, port=ports[number]) for number in range(1, nodes + 1)]
    config = folder / "slurm.conf"
    config.write_text(_CONFIG.format(folder=folder, host=host, ports=ports, nodes="\n".join(lines)))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment["SLURM_CONF"] = str(config)
    try:
        _start(folder, environment, "munged", "--force", *_munge_options(folder))
        _start(folder, environment, "slurmctld", "-f", str(config))
        for number in range(1, nodes + 1):
            _start(folder, environment, "slurmd", "-f", str(config), "-N", f"n{number}")
        _await_nodes(folder, environment, nodes)
        yield environment
    finally:
        try:
            _end_jobs(environment)
        finally:
            _stop(folder)


def _munge_options(folder: Path) -> list[str]:
    # --force: the folder of the tests may be closed to others, which munged does not like
    names = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log"}
    return [f"--{option}={folder / name}" for option, name in (names | {"seed-file": "munged.seed"}).items()]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _start(folder: Path, environment: dict[str, str], *command: str) -> None:
    """Start a daemon, which goes to the background by itself."""
    with (folder / "start.log").open("a") as log:
        done = subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=_START_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} did not start: {(folder / 'start.log').read_text()}")


def _await_nodes(folder: Path, environment: dict[str, str], nodes: int) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if _told(environment, "sinfo", "--noheader", "--states=idle", "--format=%D") == str(nodes):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the nodes did not come up: {(folder / 'slurmctld.log').read_text()[-2000:]}")


def _end_jobs(environment: dict[str, str]) -> None:
    """Cancel what runs or waits, and wait until it has ended: a daemon that is stopped leaves its jobs running."""
    _told(environment, "scancel", "--user=root")
    end = time.monotonic() + _END_S
    while _told(environment, "squeue", "--noheader") and time.monotonic() < end:
        time.sleep(0.1)


def _told(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_START_S, check=False)
    return done.stdout.strip()


def _stop(folder: Path) -> None:
    """End the daemons by their pid files, nodes first."""
    order = [*sorted(folder.glob("slurmd.*.pid")), folder / "slurmctld.pid", folder / "munged.pid"]
    running = [int(path.read_text()) for path in order if path.exists()]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        end = time.monotonic() + _END_S
        while running and time.monotonic() < end:
            running = [pid for pid in running if Path(f"/proc/{pid}").exists()]
            time.sleep(0.05)
