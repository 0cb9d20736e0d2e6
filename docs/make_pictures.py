"""Run the tutorial in a new folder and make its pictures and printed texts: python docs/make_pictures.py FOLDER.

Needs hpcsort, mpiexec and chromium on the PATH.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import mrcfile
import numpy as np
import pandas as pd
from _tutorial import tutorial_blocks
from PIL import Image

_PICTURES = Path(__file__).resolve().parent / "pictures"
_TIME_STAMP = len("2026-01-01 00:00:00  ")
_PRINTED = {"hpcsort check": "check.txt", "import pandas": "truth.txt"}
"""Beginning of a block of the tutorial, and the file for what it prints."""
_OTHERS = (
    "hpcsort simulate large --particles 2000 --snr 0.3",
    "mpiexec -n 2 hpcsort cl2d --instack large/particles.star --output-dir classes2d --classes 16",
    "hpcsort cluster-averages --averages classes2d --output-dir families --min-clusters 2",
    "hpcsort simulate tilted --tilt-pairs 3",
    "hpcsort extract-pairs --pairs tilted/pairs.star --coordinates tilted/coordinates --box 96 --invert --output pairs",
)
"""What the reports of the other programs are shown with."""


def main(folder: Path) -> None:
    """Run the tutorial, and write all pictures and texts."""
    folder.mkdir(parents=True)
    for language, text in tutorial_blocks():
        command = ["bash", "-euc", text] if language == "bash" else [sys.executable, "-c", text]
        told = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
        for start, name in _PRINTED.items():
            if text.startswith(start):
                (_PICTURES / name).write_text(told)
    _particles(folder)
    _fsc(folder)
    _report(folder / "sorted" / "report.html", 1500, "report.png")
    _report(folder / "sorted" / "report.html", 4450, "sort3d.png")
    for command in _OTHERS:
        subprocess.run(command.split(), cwd=folder, check=True, stdout=subprocess.DEVNULL)
    _report(folder / "classes2d" / "report.html", 2650, "cl2d.png")
    _report(folder / "families" / "report.html", 2050, "averages.png")
    _report(folder / "pairs" / "report.html", 1800, "pairs.png")
    lines = (folder / "sorted" / "log.txt").read_text().splitlines()
    (_PICTURES / "log.txt").write_text("\n".join(line[_TIME_STAMP:] for line in lines) + "\n")


def _particles(folder: Path) -> None:
    stack = mrcfile.mmap(folder / "data" / "particles.mrcs").data[:16]
    figure, axes = plt.subplots(2, 8, figsize=(8, 2.1))
    for axis, image in zip(axes.flat, stack, strict=True):
        low, high = np.percentile(image, [1, 99])
        axis.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="nearest")
        axis.set(xticks=[], yticks=[])
    _save(figure, "particles.png")


def _fsc(folder: Path) -> None:
    truth = np.stack([_read(path) for path in sorted((folder / "data").glob("state_*.mrc"))])
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True)
    for number, path in enumerate(sorted((folder / "sorted").glob("vol_cluster???.mrc"))):
        table = pd.read_csv(
            folder / "sorted" / f"vol_cluster{number:03d}_fsc.txt", sep=r"\s+", comment="#", header=None
        )
        axes[0].plot(1 / table[1][1:], table[2][1:], label=f"group {number}")
        curves = [_shell_correlation(_read(path), state) for state in truth]
        state = int(np.argmax([curve.sum() for curve in curves]))
        axes[1].plot(1 / table[1][1:], curves[state][1 : len(table)], label=f"group {number}, state {state}")
    for axis, title in zip(axes, ("half-maps", "map and true state"), strict=True):
        axis.axhline(0.143, color="grey", linewidth=0.5)
        axis.set(title=title, xlabel="1 / resolution (1/Å)", ylim=(-0.1, 1.05))
        axis.legend(fontsize=8)
    axes[0].set_ylabel("Fourier shell correlation")
    _save(figure, "fsc.png")


def _report(page: Path, height: int, name: str) -> None:
    """Screenshot of the top of a report page; few colours make a small file."""
    shot = page.with_suffix(".png")
    browser = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size=1280,{height}"]
    place = page.resolve().as_uri()
    subprocess.run([*browser, f"--screenshot={shot}", place], check=True, stderr=subprocess.DEVNULL)
    Image.open(shot).convert("RGB").quantize(64).save(_PICTURES / name, optimize=True)


def _shell_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """FSC of two maps [z, y, x] without a mask, shell by shell up to half the box."""
    size = len(one)
    axis = np.fft.fftfreq(size, 1 / size)
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).round().astype(int).ravel()
    a, b = (np.fft.fftn(volume).ravel() for volume in (one, other))
    cross, first, second = (
        np.bincount(radius, values) for values in ((a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2)
    )
    return (cross / np.sqrt(first * second))[: size // 2 + 1]


def _read(path: Path) -> np.ndarray:
    return np.array(mrcfile.read(path), np.float64)


def _save(figure: plt.Figure, name: str) -> None:
    figure.tight_layout(pad=0.4)
    figure.savefig(_PICTURES / name, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
