"""Simulated particle stacks with known states: phantoms, domains, poses, CTF, noise and their errors."""

from hpcsort.simulation.options import SimulationOptions
from hpcsort.simulation.phantom import PHANTOM_DOMAINS, ribosome_phantom
from hpcsort.simulation.run import SimulationResult, simulate
from hpcsort.simulation.sections import SectionMaker, half_plane, image_from_half_plane
from hpcsort.simulation.states import make_states

__all__ = [
    "PHANTOM_DOMAINS",
    "SectionMaker",
    "SimulationOptions",
    "SimulationResult",
    "half_plane",
    "image_from_half_plane",
    "make_states",
    "ribosome_phantom",
    "simulate",
]
