#!/usr/bin/env bash
# hpcsort sort3d on one machine without a batch system.
#
#   jobs/sort3d_workstation.sh particles.star sorted [further options of hpcsort sort3d]
#
# RANKS: number of MPI ranks (default: the physical cores).
# HPCSORT_ENV: virtual environment with hpcsort and its extra [mpi] (default: .venv beside the folder jobs/).

set -euo pipefail

if [ "$#" -lt 2 ]; then
    echo "usage: $0 particles.star OUTPUT_DIR [further options of hpcsort sort3d]" >&2
    exit 2
fi
stack=$1
output=$2
shift 2

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
environment=${HPCSORT_ENV:-$here/.venv}
if [ ! -x "$environment/bin/mpiexec" ] || [ ! -x "$environment/bin/hpcsort" ]; then
    echo "$environment has no mpiexec and hpcsort; install with: python3 -m venv $environment && $environment/bin/pip install \"$here[mpi]\"" >&2
    exit 1
fi

physical_cores() {
    local cores
    cores=$(lscpu --parse=CORE,SOCKET 2>/dev/null | grep -v '^#' | sort -u | wc -l) || cores=0
    if [ "$cores" -gt 0 ]; then echo "$cores"; else nproc; fi
}
ranks=${RANKS:-$(physical_cores)}

exec "$environment/bin/mpiexec" -n "$ranks" "$environment/bin/hpcsort" sort3d --instack "$stack" --output-dir "$output" "$@"
