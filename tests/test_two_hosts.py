"""A sort over two network namespaces of this machine, which have host names and networks of their own.

Hydra starts its helper on each host by a remote shell; here that is a script that enters the host's namespaces.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mpi_helpers import find_mpiexec, run_alone, run_mpi
from sort3d_runs import MAIN, digests, simulate_small

pytestmark = [pytest.mark.mpi, pytest.mark.slow]

_HOSTS = ("a", "b")
_SORT = ("--max-groups", "2", "--depth-order", "1", "--components", "1", "--nxinit", "14", "--watchdog-minutes", "1")
_AGENT = """\
#!/bin/sh
# called like ssh: options, host, command
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1
shift
exec ip netns exec "{prefix}$host" unshare --uts sh -c "hostname host-$host; $*"
"""


class Network:
    """A bridge, and a namespace for each host whose one cable leads there."""

    def __init__(self, folder: Path) -> None:
        self._prefix = f"hpcsort{os.getpid()}"
        self._bridge = f"hs{os.getpid()}"
        # a range that is set aside for tests of networks (RFC 2544)
        self._net = f"198.18.{os.getpid() % 256}"
        self.address = f"{self._net}.254"
        self.agent = folder / "agent"
        self.agent.write_text(_AGENT.format(prefix=self._prefix))
        self.agent.chmod(0o755)

    def build(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", f"{self.address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for number, host in enumerate(_HOSTS, start=1):
            space, outside = self._prefix + host, self._bridge + host
            _ip("netns", "add", space)
            _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", outside, "master", self._bridge, "up")
            _ip("-n", space, "address", "add", f"{self._net}.{number}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")

    def launching(self, hosts: Path) -> dict[str, str]:
        """Environment for hydra to start a rank on each host, and for MPI to take the network, not shared memory."""
        hosts.write_text("".join(f"{host}:1\n" for host in _HOSTS))
        return {
            "HYDRA_LAUNCHER": "ssh",
            "HYDRA_LAUNCHER_EXEC": str(self.agent),
            "HYDRA_HOST_FILE": str(hosts),
            "HYDRA_IFACE": self._bridge,
            "UCX_TLS": "tcp,self",
        }

    def sent_bytes(self, host: str) -> int:
        """Bytes that a host has sent so far."""
        told = json.loads(_ip("-n", self._prefix + host, "-json", "-statistics", "link", "show", "eth0"))
        return int(told[0]["stats64"]["tx"]["bytes"])

    def remove(self) -> None:
        """Remove what `build` has made, also where it did not come to its end."""
        for host in _HOSTS:
            subprocess.run(["ip", "netns", "delete", self._prefix + host], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", self._bridge], capture_output=True, check=False)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    absent = [name for name in ("ip", "unshare") if shutil.which(name) is None]
    if absent:
        pytest.skip(f"{' and '.join(absent)} not found (Debian's packages iproute2 and util-linux)")
    made = Network(tmp_path)
    try:
        try:
            made.build()
        except OSError as error:
            pytest.skip(f"this machine gives no network namespaces ({error})")
        yield made
    finally:
        made.remove()


def test_two_hosts_give_the_bytes_of_one_process(tmp_path: Path, network: Network) -> None:
    launcher = find_mpiexec()
    told = subprocess.run([launcher, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    if "HYDRA" not in told:
        pytest.skip(f"{launcher} is not hydra, the launcher of MPICH")
    star = simulate_small(tmp_path / "data", 100).star
    words = ("-c", MAIN, "sort3d", "--instack", str(star), *_SORT, "--output-dir")
    alone = run_alone(*words, str(tmp_path / "alone"))
    assert alone.returncode == 0, alone.stderr
    both = run_mpi(2, *words, str(tmp_path / "both"), timeout_s=100, env=network.launching(tmp_path / "hosts"))
    assert both.returncode == 0, both.stderr
    assert digests(tmp_path / "both") == digests(tmp_path / "alone")
    record = json.loads((tmp_path / "both" / "run.json").read_text())
    assert record["ranks"] == 2
    for host in _HOSTS:
        assert network.sent_bytes(host) > 1e5
