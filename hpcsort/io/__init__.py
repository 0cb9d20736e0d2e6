"""Files in and out: particle tables, image stacks, maps, smears, and writing that leaves whole files or none."""

from hpcsort.io._assemble import joined_optics
from hpcsort.io.columns import Columns
from hpcsort.io.cryosparc import load_cryosparc, read_cryosparc
from hpcsort.io.cryosparc_write import cryosparc_fields, write_cryosparc
from hpcsort.io.eman_hdf import read_hdf_map, write_hdf_map
from hpcsort.io.eman_headers import read_eman_headers
from hpcsort.io.eman_stack import read_eman_stack
from hpcsort.io.eman_write import eman_ctf_numbers, eman_headers, write_eman_stack
from hpcsort.io.files import atomic_write, write_text_atomically
from hpcsort.io.frames import table_of_frame
from hpcsort.io.hdf_stack import HdfStack
from hpcsort.io.images import BadImage, ImageReader, find_bad_images, judge_images
from hpcsort.io.inputs import format_of, read_any_map, read_bare_stack, read_input
from hpcsort.io.mrc import MrcStack, read_map, write_map, write_stack
from hpcsort.io.particles import ParticleTable, read_particles
from hpcsort.io.smear_table import read_smears, write_smears
from hpcsort.io.smears import Smears
from hpcsort.io.stacks import find_stacks, open_stack, relion_name
from hpcsort.io.star import read_tables, write_particles, write_tables
from hpcsort.io.xmd import as_frame, read_xmd, write_xmd
from hpcsort.io.xmipp import read_xmipp, xmipp_columns

__all__ = [
    "BadImage",
    "Columns",
    "HdfStack",
    "ImageReader",
    "MrcStack",
    "ParticleTable",
    "Smears",
    "as_frame",
    "atomic_write",
    "cryosparc_fields",
    "eman_ctf_numbers",
    "eman_headers",
    "find_bad_images",
    "find_stacks",
    "format_of",
    "joined_optics",
    "judge_images",
    "load_cryosparc",
    "open_stack",
    "read_any_map",
    "read_bare_stack",
    "read_cryosparc",
    "read_eman_headers",
    "read_eman_stack",
    "read_hdf_map",
    "read_input",
    "read_map",
    "read_particles",
    "read_smears",
    "read_tables",
    "read_xmd",
    "read_xmipp",
    "relion_name",
    "table_of_frame",
    "write_cryosparc",
    "write_eman_stack",
    "write_hdf_map",
    "write_map",
    "write_particles",
    "write_smears",
    "write_stack",
    "write_tables",
    "write_text_atomically",
    "write_xmd",
    "xmipp_columns",
]
