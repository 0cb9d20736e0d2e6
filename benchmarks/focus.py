"""Differences too small for the whole map: focus masks, and a broken symmetry after expansion.

    python benchmarks/focus.py [--work DIR] [--particles 4000] [--symmetric 600] [--ranks 2]

1. Two states of the ribosome, one without a sphere of 1.5 % of the mass, sorted plainly, with a focus mask (a ball
   around that place) and with --auto-focus; and one state with --auto-focus, which must stay one group.
2. A D7 phantom that lacks one of its 14 subunits, at poses that are right but for the symmetry: which subunit is absent
   is not known. --expand with a focus on one place sorts the copies in which the broken one lies there.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from _measures import measure, read_truth
from _oracle import oracle_scores
from _sets import SHARED
from smears import _run

from hpcsort.geometry import point_group, relion_angles, relion_matrices
from hpcsort.io import read_map, read_particles, write_map, write_particles
from hpcsort.partitions import adjusted_rand_index
from hpcsort.volumes import sphere_mask

_HEADS = ("sort", "groups", "accounted %", "right of likeliest %", "ARI of likeliest", "oracle %", "CPU s")
_SNR = "0.1"
_BALL_PX, _EDGE_PX = 8.0, 4.0
_D7_BOX, _D7_A, _D7_RADIUS, _D7_BLOBS = 48, 5.0, 16.0, 5


def _print(cells: list[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def _sorted(star: Path, out: Path, words: list[str], ranks: int) -> float:
    _, cpu = _run(
        "sort3d", "--instack", str(star), "--output-dir", str(out), "--overwrite", "--quiet", *words, ranks=ranks
    )
    return cpu


def small_difference(work: Path, particles: int, shared: Path, ranks: int) -> None:
    """Sort two states that differ by 1.5 % of the mass, and one state."""
    ribosome = shared / "data" / "maps" / "ribosome70S_65px_5A.mrc"
    source = ["--map", str(ribosome)] if ribosome.exists() else []
    for name, states in (("two", "2"), ("one", "1")):
        if not (work / name / "truth.csv").exists():
            words = ["--box", "64", "--angpix", "5", "--particles", str(particles), "--states", states, "--snr", _SNR]
            nested = ["--nested", "--domain-share", "0.015"] if states == "2" else []
            _run("simulate", str(work / name), *source, *words, *nested, "--seed", "21")
    first, second = (read_map(path)[0] for path in sorted((work / "two").glob("state_*.mrc")))
    lost = np.abs(first - second)
    place = np.argwhere(lost > 0.05 * lost.max()).mean(axis=0)[::-1] - len(first) // 2
    ball = sphere_mask(len(first), place.tolist(), _BALL_PX, _EDGE_PX)
    write_map(work / "ball.mrc", ball, 5.0, overwrite=True)
    for name, words in (
        ("two", []),
        ("two", ["--focus", str(work / "ball.mrc")]),
        ("two", ["--auto-focus"]),
        ("one", ["--auto-focus"]),
    ):
        out = work / f"sorted_{name}_{words[0].strip('-') if words else 'plain'}"
        cpu = _sorted(work / name / "particles.star", out, words, ranks)
        found = measure(read_truth(work / name), out)
        told = " ".join(word if word.startswith("--") else "BALL" for word in words) or "plain"
        right, _ = oracle_scores(work / name)
        _print([
            f"{name} state{'s' if name == 'two' else ''}, {told}", str(found["groups"]),
            f"{100 * found['accounted']:.1f}", f"{100 * found['right of likeliest']:.1f}",
            f"{found['ARI of likeliest']:.3f}", f"{100 * right:.1f}", f"{cpu:.0f}",
        ])  # fmt: skip


def _blobs(places: np.ndarray) -> np.ndarray:
    axis = np.arange(_D7_BOX) - _D7_BOX // 2
    volume = np.zeros((_D7_BOX,) * 3)
    for centre in places:
        x, y, z = (np.exp(-((axis - position) ** 2) / 4) for position in centre)
        volume += z[:, None, None] * y[:, None] * x
    return volume.astype(np.float32)


def broken_symmetry(work: Path, particles: int, ranks: int) -> None:
    """Sort the mates of a D7 phantom that lacks one subunit."""
    operators = point_group("d7")
    draw = np.random.default_rng(14)
    direction = np.array([np.cos(np.pi / 14), np.sin(np.pi / 14), 0.6])
    centre = 0.7 * _D7_RADIUS * direction / np.linalg.norm(direction)
    unit = centre + 2.0 * draw.normal(size=(_D7_BLOBS, 3))
    mates = (unit @ operators.transpose(0, 2, 1)).reshape(-1, 3)
    write_map(work / "broken.mrc", _blobs(mates[len(unit) :]), _D7_A, overwrite=True)
    folder = work / "d7"
    if not (folder / "truth.csv").exists():
        words = ["--map", str(work / "broken.mrc"), "--particles", str(particles), "--states", "1", "--snr", "0.1"]
        _run("simulate", str(folder), *words, "--seed", "22")
    table = read_particles(folder / "particles.star")
    hidden = draw.integers(0, len(operators), len(table))
    angles = relion_angles(relion_matrices(table.angles_deg) @ operators[hidden])
    frame = table.frame.assign(**dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles.T, strict=True)))
    table.frame[frame.columns] = frame
    write_particles(folder / "hidden.star", table, overwrite=True)
    write_map(work / "subunit.mrc", sphere_mask(_D7_BOX, centre.tolist(), 7.0, 3.0), _D7_A, overwrite=True)
    out = work / "sorted_d7"
    # Subunits beside the focus reach into it, and whether one of them is absent shows a little too.
    words = ["--sym", "d7", "--expand", "--focus", str(work / "subunit.mrc"), "--radius", "22", "--max-groups", "2"]
    cpu = _sorted(folder / "hidden.star", out, words, ranks)
    turned = operators[hidden][:, None] @ operators[None]
    truth = (np.abs(turned - np.eye(3)).max(axis=(2, 3)) < 1e-6).astype(np.int64).ravel()
    sorted_table = read_particles(out / "particles.star").frame
    likeliest = sorted_table["hpcsortLikeliestGroup"].to_numpy(np.int64) - 1
    labels = sorted_table["rlnClassNumber"].to_numpy(np.int64) - 1
    groups = int(labels.max()) + 1
    share = [float(truth[labels == group].mean()) for group in range(groups)]
    best = int(np.argmax(share))
    held = float((likeliest[truth == 1] == best).mean())
    print(
        f"\nD7, one of 14 subunits absent, {particles} particles, {len(truth)} copies: {groups} groups with "
        f"{', '.join(f'{100 * value:.1f}' for value in share)} % of broken copies; the group of broken ones holds "
        f"{100 * held:.1f} % of them (likeliest group), ARI {adjusted_rand_index(truth, likeliest):.3f}; "
        f"{cpu:.0f} CPU s."
    )


def main() -> None:
    """Make, sort, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--particles", type=int, default=4000)
    parser.add_argument("--symmetric", type=int, default=600)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--only", choices=["focus", "symmetry"])
    parser.add_argument("--shared", type=Path, default=SHARED)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if asked.only != "symmetry":
            _print(list(_HEADS))
            print("|---|" + "---:|" * (len(_HEADS) - 1), flush=True)
            small_difference(work, asked.particles, asked.shared, asked.ranks)
        if asked.only != "focus":
            broken_symmetry(work, asked.symmetric, asked.ranks)


if __name__ == "__main__":
    main()
