"""How the groups of a sort stand against sets of one state that were sorted by the same code (`null.py`)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from hpcsort.io import write_text_atomically
from hpcsort.partitions import match_groups

__all__ = ["NullLevels", "Support", "carried_over", "null_lines", "stable_sets", "supported", "write_null"]

_LEVEL = 0.05


@dataclass(frozen=True)
class NullLevels:
    """What the sort finds in sets of one state.

    Attributes
    ----------
    classes : number of classes that was forced upon them.
    gains : float64 (N,), held-out log-likelihood ratio a particle of the best number of classes above one, against one
        class.
    reproducibility : float64 (N,), largest score of any group of each set, by `stable_sets`.
    """

    classes: int
    gains: np.ndarray
    reproducibility: np.ndarray

    def __len__(self) -> int:
        return len(self.gains)


@dataclass(frozen=True)
class Support:
    """How the groups of a sort stand against the null.

    Attributes
    ----------
    gain : held-out gain of the data.
    existence : p-value of "there is more than one state".
    reproducibility, p : float64 (groups,), score of each group beyond chance, and its p-value.
    supported : bool (groups,), p at most 5 %, provided that ``existence`` is at most 5 % too.
    """

    gain: float
    existence: float
    reproducibility: np.ndarray
    p: np.ndarray
    supported: np.ndarray

    @property
    def number(self) -> int:
        """Number of supported groups."""
        return int(self.supported.sum())


def stable_sets(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Particles on which two independent chains agree, and Jaccard scores of their matched groups beyond chance.

    The score is (J - chance) / (1 - chance). Without the correction a class that swallows all particles in both
    chains, which is what classes without a difference tend to do, would be perfectly reproducible. Chance is the score
    of random groups of the same sizes at their expected overlap; a group of all particles scores 0.

    Parameters
    ----------
    first, second : int (n,), labels of two independent chains, -1 for no class.

    Returns
    -------
    labels : int64 (n,), matched pair of groups by falling overlap, -1 where the chains disagree.
    scores : float64 (pairs,).
    """
    matching = match_groups(first, second)
    order = np.argsort(-matching.overlap, kind="stable")
    labels = np.full(len(first), -1, np.int64)
    for rank, (one, other) in enumerate(matching.pairs[order]):
        labels[(first == one) & (second == other)] = rank
    sizes = matching.sizes[order].astype(np.float64)
    overlap = sizes.prod(axis=1) / max(len(first), 1)
    chance = overlap / np.maximum(sizes.sum(axis=1) - overlap, 1e-300)
    room = np.maximum(1.0 - chance, 1e-300)
    return labels, np.where(chance < 1.0 - 1e-9, (matching.jaccard[order] - chance) / room, 0.0)


def supported(levels: NullLevels, gain: float, reproducibility: np.ndarray) -> Support:
    """Test a sort against the null.

    A p-value is (1 + sets that reach the figure) / (N + 1), which is exact where data and null are exchangeable
    (Phipson & Smyth 2010). A group is compared with the LARGEST group of every set, because it is not known which of
    a set's groups is its like. P-values from the maximum hold for all groups together (Westfall & Young 1993): the
    chance of even one false group is at most 5 %, and the share of false ones with it. Correcting them once more (for
    example by Benjamini & Hochberg) would cost the good groups of a sort with one bad group their support.

    Parameters
    ----------
    levels : of the null.
    gain : mean held-out gain of the data, from the same function as those of the null.
    reproducibility : float64 (groups,), scores of the data's groups, from the same function too.
    """
    scores = np.asarray(reproducibility, np.float64)
    existence = float(_exceeded(levels.gains, np.array([gain]))[0])
    p = _exceeded(levels.reproducibility, scores)
    return Support(float(gain), existence, scores, p, (p <= _LEVEL) & (existence <= _LEVEL))


def carried_over(support: Support, sets: np.ndarray, groups: np.ndarray, number: int) -> Support:
    """Support of the groups of a whole sort, each that of the stable set which holds most of its members.

    Parameters
    ----------
    support : of the stable sets of one pair of chains.
    sets, groups : int (n,), stable set and group of every particle, -1 for none.
    number : of groups; one whose members are in no stable set has score 0 and p-value 1.
    """
    scores, p, kept = (
        np.append(support.reproducibility, 0.0),
        np.append(support.p, 1.0),
        np.append(support.supported, False),
    )
    table = np.zeros((number, len(scores)), np.int64)
    both = (groups >= 0) & (sets >= 0)
    np.add.at(table, (groups[both], sets[both]), 1)
    held = np.where(table.any(axis=1), table.argmax(axis=1), len(scores) - 1)
    return Support(support.gain, support.existence, scores[held], p[held], kept[held])


def _exceeded(null: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.asarray((1.0 + (null >= values[:, None]).sum(axis=1)) / (len(null) + 1))


def null_lines(levels: NullLevels, support: Support) -> list[str]:
    """Plain sentences for the log."""
    count, groups = len(levels), len(support.p)
    few = 1 / (count + 1) > _LEVEL
    verdict = "more than one state" if support.existence <= _LEVEL else "no evidence of more than one state"
    verdict = "too few sets to tell" if few else verdict
    lines = [
        f"Null: {count} simulated set{'s' if count != 1 else ''} of one state with the same poses, CTFs, "
        "errors and noise, sorted the same way.",
        f"  The data gain {support.gain:.3f} a particle by more than one class, the null sets "
        f"{levels.gains.mean():.3f} +- {levels.gains.std():.3f}: {verdict} (p = {support.existence:.2g}).",
        f"  The most reproducible group of a null set in {levels.classes} classes reaches "
        f"{100 * levels.reproducibility.mean():.1f} % beyond chance (at most "
        f"{100 * levels.reproducibility.max(initial=0):.1f} %).",
        f"  {support.number} of {groups} group{'s are' if groups != 1 else ' is'} supported, with a chance of "
        f"{100 * _LEVEL:.0f} % that any of them is false.",
    ]
    for index in np.flatnonzero(~support.supported & (not few)):
        lines.append(
            f"  group {index} is not supported: its reproducibility is {100 * support.reproducibility[index]:.1f} % "
            f"beyond chance (p = {support.p[index]:.2g})."
        )
    if few:
        lines.append(
            f"  {count} null sets cannot give a p-value below {1 / (count + 1):.2g}; --null {round(1 / _LEVEL) - 1} or "
            "more can support a group."
        )
    return lines


def write_null(folder: Path, levels: NullLevels, support: Support) -> dict[str, Any]:
    """Write null.csv into ``folder``, a row for the data and one for each null set; return the summary for run.json."""
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["set", "gain", "largest_reproducibility"])
    table.writerow(["data", repr(support.gain), repr(float(support.reproducibility.max(initial=0.0)))])
    for number, row in enumerate(zip(levels.gains.tolist(), levels.reproducibility.tolist(), strict=True)):
        table.writerow([number, *map(repr, row)])
    write_text_atomically(folder / "null.csv", text.getvalue())
    return {
        "sets": len(levels),
        "classes": levels.classes,
        "gain": support.gain,
        "existence_p": support.existence,
        "groups": [
            {"reproducibility": score, "p": p, "supported": bool(kept)}
            for score, p, kept in zip(
                support.reproducibility.tolist(), support.p.tolist(), support.supported, strict=True
            )
        ],
        "supported_groups": support.number,
    }
