#!/usr/bin/env bash
# Any program of hpcsort on one machine without a batch system, on all of its cores:
#
#   jobs/workstation.sh sort3d --instack particles.star --output-dir sorted
#
# RANKS: number of MPI ranks (default: the physical cores).
# HPCSORT_ENV: virtual environment with hpcsort and its extra [mpi] (default: .venv beside the folder jobs/).

set -euo pipefail

if [ "$#" -lt 1 ]; then
    echo "usage: $0 sort3d|cl2d|match|reconstruct ... [options of the program]" >&2
    exit 2
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
environment=${HPCSORT_ENV:-$here/.venv}
if [ ! -x "$environment/bin/mpiexec" ] || [ ! -x "$environment/bin/hpcsort" ]; then
    echo "$environment has no mpiexec and hpcsort; install with: python3 -m venv $environment && $environment/bin/pip install \"${here}[mpi]\"" >&2
    exit 1
fi

physical_cores() {
    local cores
    cores=$(lscpu --parse=CORE,SOCKET 2>/dev/null | grep -v '^#' | sort -u | wc -l) || cores=0
    if [ "$cores" -gt 0 ]; then echo "$cores"; else nproc; fi
}

exec "$environment/bin/mpiexec" -n "${RANKS:-$(physical_cores)}" "$environment/bin/hpcsort" "$@"
