"""Memory: what a node may use, and what a run has used."""

from __future__ import annotations

import os
import resource
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from hpcsort.parallel.comm import Communicator

__all__ = ["node_memory_GB", "peak_memory_GB", "peak_memory_of_node_GB"]

_UNLIMITED = 1 << 60
"""Version 1 of the control groups writes a number near 2^63 where there is no limit."""


def peak_memory_GB(comm: Communicator | None = None) -> float:
    """Return the largest memory (resident set) any rank has had so far, in GB of 10^9 bytes.

    Memory shared by the ranks of a node is counted in each of them. Collective with `comm`.
    """
    peak = _own_peak_GB()
    return peak if comm is None else float(comm.max(peak))


def _own_peak_GB() -> float:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9
    except (OSError, ValueError, IndexError):
        pass
    # On Linux this is at least what the starting process held when it started this one, hence only the second choice.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def peak_memory_of_node_GB(comm: Communicator) -> float:
    """Return the memory that the ranks of one node have used, of the node that used most, in GB of 10^9 bytes.

    The sum of the ranks' own peaks, which need not be at the same time, and once the largest part that ranks share:
    libraries and node-shared arrays. Where the system does not tell what is shared, it counts in each rank. Collective.
    """
    peak, shared = peak_memory_GB(), _shared_memory_GB()
    own: dict[str, float] = defaultdict(float)
    common: dict[str, float] = defaultdict(float)
    for host, private, part in comm.allgather((comm.host, max(peak - shared, 0.0), min(shared, peak))):
        own[host] += private
        common[host] = max(common[host], part)
    return max(own[host] + common[host] for host in own)


def node_memory_GB() -> float:
    """Return the memory of this node that the job may use, in GB of 10^9 bytes.

    The least of the machine's memory, the limits of the process's control groups (versions 1 and 2) and what SLURM
    granted; infinite where nothing tells.
    """
    return min(_limits(Path("/"), os.environ), default=float("inf")) / 1e9


def _limits(root: Path, environment: Mapping[str, str]) -> Iterator[int]:
    """Limits in bytes, of a system whose files lie under ``root``."""
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            yield int(line.split()[1]) * 1024
    for folder, name in _control_groups(root):
        text = _read(folder / name).strip()
        if text.isdigit() and int(text) < _UNLIMITED:
            yield int(text)
    # SLURM tells in MiB; 0 is the whole node.
    node = _number(environment, "SLURM_MEM_PER_NODE")
    if not node:
        node = _number(environment, "SLURM_MEM_PER_CPU") * _number(environment, "SLURM_CPUS_ON_NODE")
    if node:
        yield node << 20


def _control_groups(root: Path) -> Iterator[tuple[Path, str]]:
    """Folders of the process's control groups, each with those above it, and the name of the file with the limit."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, named = line.partition(":")
        controllers, _, place = named.partition(":")
        if controllers == "":
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be that of the host, of which only the innermost is seen, as the root.
        inside = Path(place.lstrip("/"))
        for folder in (inside, *inside.parents):
            yield base / folder, name


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdigit() else 0


def _shared_memory_GB() -> float:
    """Memory of this process that others may share: files and shared segments, which it holds now."""
    shared = 0
    for line in _read(Path("/proc/self/status")).splitlines():
        if line.startswith(("RssFile:", "RssShmem:")):
            shared += int(line.split()[1]) * 1024
    return shared / 1e9
