"""Ranks and what they share: communicator, chunks, exact sums, random streams, launch checks, progress."""

from hpcsort.parallel.chunks import cut_chunks, deal_chunks, owned_rows, row_counts
from hpcsort.parallel.comm import Communicator, SerialComm
from hpcsort.parallel.exact import ExactSum
from hpcsort.parallel.launch import abort_on_error, check_launch, chosen_ranks, raise_together, together
from hpcsort.parallel.memory import node_memory_GB, peak_memory_GB, peak_memory_of_node_GB
from hpcsort.parallel.mpicomm import MpiComm, get_comm
from hpcsort.parallel.nodearray import NodeArray
from hpcsort.parallel.progress import Progress, Stage, StoryLog
from hpcsort.parallel.signals import stop_signals
from hpcsort.parallel.streams import stream
from hpcsort.parallel.watch import watch_ranks

__all__ = [
    "Communicator",
    "ExactSum",
    "MpiComm",
    "NodeArray",
    "Progress",
    "SerialComm",
    "Stage",
    "StoryLog",
    "abort_on_error",
    "check_launch",
    "chosen_ranks",
    "cut_chunks",
    "deal_chunks",
    "get_comm",
    "node_memory_GB",
    "owned_rows",
    "peak_memory_GB",
    "peak_memory_of_node_GB",
    "raise_together",
    "row_counts",
    "stop_signals",
    "stream",
    "together",
    "watch_ranks",
]
