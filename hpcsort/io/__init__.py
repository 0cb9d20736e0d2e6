"""Files in and out: STAR tables, MRC stacks and maps, and writing that leaves whole files or none."""

from hpcsort.io.eman_hdf import read_hdf_map, write_hdf_map
from hpcsort.io.files import atomic_write, write_text_atomically
from hpcsort.io.images import BadImage, ImageReader, find_bad_images, judge_images
from hpcsort.io.mrc import MrcStack, read_map, write_map, write_stack
from hpcsort.io.particles import ParticleTable, read_particles
from hpcsort.io.star import read_tables, write_particles, write_tables

__all__ = [
    "BadImage",
    "ImageReader",
    "MrcStack",
    "ParticleTable",
    "atomic_write",
    "find_bad_images",
    "judge_images",
    "read_hdf_map",
    "read_map",
    "read_particles",
    "read_tables",
    "write_hdf_map",
    "write_map",
    "write_particles",
    "write_stack",
    "write_tables",
    "write_text_atomically",
]
