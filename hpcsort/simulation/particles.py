"""Everything about simulated particles but their pixels: states, poses, defocus, and the errors written to the table.

Each particle and micrograph has its own random stream: it is the same whatever is made before it or beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from hpcsort.errors import OptionError
from hpcsort.geometry import relion_angles, relion_matrices
from hpcsort.parallel import stream
from hpcsort.simulation.options import SimulationOptions

FloatArray = npt.NDArray[np.float64]

JUNK = -1
_CONE_DEG = 20.0
_PREFERRED_ROT_TILT_DEG = (40.0, 70.0)
_ASTIGMATISM_A = 800.0
_JITTER_A = 150.0


@dataclass(frozen=True)
class SimulatedParticles:
    """Truth and written values of n particles.

    Attributes
    ----------
    state : ndarray, shape (n,), int64
        State from 0, or -1 for junk.
    wrong_density : ndarray, shape (n,), bool
        Junk that shows another density; other junk is noise.
    matrices : ndarray, shape (n, 3, 3), float64
        True rotations, volume to view.
    origins_px : ndarray, shape (n, 2), float64
        True origins (x, y).
    written_angles_deg : ndarray, shape (n, 3), float64
        rot, tilt, psi of the table, with errors.
    written_origins_px : ndarray, shape (n, 2), float64
        Origins (x, y) of the table, with errors.
    micrograph : ndarray, shape (n,), int64
        Micrograph from 0.
    defocus_u_A, defocus_v_A, defocus_angle_deg : ndarray, shape (n,), float64
        Defocus as in RELION's table.
    subset : ndarray, shape (n,), int64
        Half set, 1 or 2.
    """

    state: npt.NDArray[np.int64]
    wrong_density: npt.NDArray[np.bool_]
    matrices: FloatArray
    origins_px: FloatArray
    written_angles_deg: FloatArray
    written_origins_px: FloatArray
    micrograph: npt.NDArray[np.int64]
    defocus_u_A: FloatArray
    defocus_v_A: FloatArray
    defocus_angle_deg: FloatArray
    subset: npt.NDArray[np.int64]


def draw_particles(options: SimulationOptions) -> SimulatedParticles:
    """Draw all particles of a run.

    Parameters
    ----------
    options : SimulationOptions
        The run.

    Returns
    -------
    SimulatedParticles
        Particles in the order of the table, micrograph after micrograph.

    Raises
    ------
    OptionError
        If there are fewer particles than states.
    """
    count = options.particles
    state, wrong, subset = _states(options)
    uniform, normal = np.empty((count, 5)), np.empty((count, 8))
    for i in range(count):
        rng = stream(options.seed, "pose", i)
        rng.random(out=uniform[i])
        rng.standard_normal(out=normal[i])
    matrices = relion_matrices(_angles(uniform, options.preferred))
    origins = options.shift_sigma_px * normal[:, :2]
    error = Rotation.from_rotvec(options.angle_error_deg * normal[:, 2:5], degrees=True).as_matrix()
    micrograph = np.arange(count, dtype=np.int64) * options.micrograph_count // count
    defocus = np.array([_micrograph_defocus(options, m) for m in range(options.micrograph_count)])[micrograph]
    jitter = _JITTER_A * normal[:, 7]
    return SimulatedParticles(
        state=state,
        wrong_density=wrong,
        matrices=matrices,
        origins_px=origins,
        written_angles_deg=relion_angles(error @ matrices),
        written_origins_px=origins + options.shift_error_px * normal[:, 5:7],
        micrograph=micrograph,
        defocus_u_A=defocus[:, 0] + jitter,
        defocus_v_A=defocus[:, 1] + jitter,
        defocus_angle_deg=defocus[:, 2],
        subset=subset,
    )


def _states(
    options: SimulationOptions,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Exact group sizes by the largest remainder, in random order; every second piece of junk is a wrong density."""
    junk = round(options.junk * options.particles)
    good = options.particles - junk
    count = options.state_count
    if good < count:
        raise OptionError(f"--particles leaves {good} images for {count} states; give one or more for each")
    share = np.asarray(options.sizes or (1.0,) * count) * good / sum(options.sizes or (1.0,) * count)
    sizes = np.floor(share).astype(np.int64)
    sizes[np.argsort(sizes - share, kind="stable")[: good - sizes.sum()]] += 1
    if sizes.min() < 1:
        raise OptionError(
            f"--sizes leaves no image for state {int(np.argmin(sizes))} of {good} images; give more --particles"
        )
    state = np.concatenate([np.full(junk, JUNK), np.repeat(np.arange(count), sizes)]).astype(np.int64)
    wrong = np.zeros(options.particles, dtype=bool)
    wrong[1:junk:2] = True
    rng = stream(options.seed, "states")
    order = rng.permutation(options.particles)
    subset = rng.permutation(np.arange(options.particles) % 2) + 1
    return state[order], wrong[order], subset.astype(np.int64)


def _angles(uniform: FloatArray, preferred: float) -> FloatArray:
    """Euler angles uniform on all rotations, or with the view inside a cone about the preferred axis."""
    in_cone = uniform[:, 0] < preferred
    lowest = np.where(in_cone, np.cos(np.deg2rad(_CONE_DEG)), -1.0)
    cosine = lowest + (1 - lowest) * uniform[:, 1]
    tilt = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    angles = np.stack([360 * uniform[:, 2] - 180, tilt, 360 * uniform[:, 3] - 180], axis=1)
    if in_cone.any():
        to_axis = relion_matrices([[*_PREFERRED_ROT_TILT_DEG, 0.0]])[0]
        angles[in_cone] = relion_angles(relion_matrices(angles[in_cone]) @ to_axis)
    return angles


def _micrograph_defocus(options: SimulationOptions, micrograph: int) -> tuple[float, float, float]:
    rng = stream(options.seed, "micrograph", micrograph)
    mean = rng.uniform(*options.defocus_range_A)
    half_astigmatism = rng.uniform(0, _ASTIGMATISM_A) / 2
    return mean + half_astigmatism, mean - half_astigmatism, rng.uniform(0, 180)
