"""Files in and out: particle tables, image stacks, maps, smears, and writing that leaves whole files or none."""

from hpcsort.io.cryosparc import read_cryosparc
from hpcsort.io.eman_hdf import read_hdf_map, write_hdf_map
from hpcsort.io.eman_stack import read_eman_stack
from hpcsort.io.files import atomic_write, write_text_atomically
from hpcsort.io.hdf_stack import HdfStack
from hpcsort.io.images import BadImage, ImageReader, find_bad_images, judge_images
from hpcsort.io.inputs import read_any_map, read_bare_stack, read_input, table_of_frame
from hpcsort.io.mrc import MrcStack, read_map, write_map, write_stack
from hpcsort.io.particles import ParticleTable, read_particles
from hpcsort.io.smear_table import read_smears, write_smears
from hpcsort.io.smears import Smears
from hpcsort.io.stacks import find_stacks, open_stack
from hpcsort.io.star import read_tables, write_particles, write_tables

__all__ = [
    "BadImage",
    "HdfStack",
    "ImageReader",
    "MrcStack",
    "ParticleTable",
    "Smears",
    "atomic_write",
    "find_bad_images",
    "find_stacks",
    "judge_images",
    "open_stack",
    "read_any_map",
    "read_bare_stack",
    "read_cryosparc",
    "read_eman_stack",
    "read_hdf_map",
    "read_input",
    "read_map",
    "read_particles",
    "read_smears",
    "read_tables",
    "table_of_frame",
    "write_hdf_map",
    "write_map",
    "write_particles",
    "write_smears",
    "write_stack",
    "write_tables",
    "write_text_atomically",
]
