"""A sort from Python: simulate particles, sort good ones, look at the groups, and make a map of the largest.

Start it with: python docs/examples/api.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np

from hpcsort import api

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "hpcsort_example")

# Any STAR, .cs or HDF file of a refinement would do; here are 300 images of 50 pixels in two states.
made = api.simulate(folder / "data", particles=300, box_px=50, states=2, snr=0.3)
table = api.read_input(made.star)
print(f"{len(table)} particles of {table.box_px} px at {table.pixel_size_A:g} A")

# A table may be cut before it is sorted. Options are those of `hpcsort sort3d --help`.
good = table.subset(table.defocus_u_A < 2.5e4)
result = api.sort3d(good, output_dir=folder / "sorted", max_groups=2, components=2, depth_order=1, quiet=True)

# Results are arrays in the order of the table, and a record for each group.
print(f"{np.mean(result.labels >= 0):.0%} of the particles are accounted for")
for number, group in enumerate(result.groups):
    sure = result.probability[result.labels == number, number].mean()
    print(f"group {number}: {group.size} particles, p = {group.p:.2g}, {group.resolution_A:.1f} A, {sure:.0%} sure")

# The programs go together: a map, with symmetry or a mask of your own, of the particles of a group.
largest = int(np.bincount(result.labels[result.labels >= 0]).argmax())
map_of_group = api.reconstruct(
    good.subset(result.labels == largest), output=folder / "maps" / "largest", radius=20, quiet=True
)
if map_of_group is not None:
    print(f"its map: {len(map_of_group.rows)} particles, {map_of_group.maps.map.shape} voxels")
