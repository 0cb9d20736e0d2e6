"""What a user must know before trusting the groups, in plain sentences."""

from __future__ import annotations

import numpy as np

from hpcsort.report.sorting.gather import FoundGroup, SortedRun

__all__ = ["find_warnings"]

_FEW, _SMALL_SHARE = 100, 0.01
_LOW_SCORE, _LOW_P = 0.5, 0.05
_MUCH_JUNK, _MANY_UNACCOUNTED = 0.05, 0.2
_WORSE = 0.02


def find_warnings(run: SortedRun) -> list[str]:
    """Return sentences, those that matter most first."""
    told = list(run.missing[:1]) if not run.run else []
    told += [f"Warning of the sort: {text}" for text in run.run.get("warnings", [])]
    for group in run.groups:
        told += _of_group(run, group)
    told += _of_particles(run)
    told += [line for line in run.log if line.startswith("Note: ")]
    told += run.missing if run.run else run.missing[1:]
    return told


def _of_group(run: SortedRun, group: FoundGroup) -> list[str]:
    name, told = f"Group {group.number}", []
    if group.size < _FEW or group.share < _SMALL_SHARE:
        told.append(
            f"{name} holds only {group.size} particles ({100 * group.share:.1f} %): its map shows little that is sure."
        )
    # One group of all is agreed on by chance as well; that is no fault of it.
    if len(run.groups) > 1 and (group.reproducibility < _LOW_SCORE or group.p > _LOW_P):
        told.append(
            f"{name} is hardly reproducible: independent chains agree on {100 * group.reproducibility:.0f} % of it, and"
            f" would on {100 * group.chance_mean:.0f} % by chance (p = {group.p:.2g})."
        )
    random, table = run.random_fsc.get(group.number), run.fsc.get(f"group {group.number}")
    if random is not None and table is not None:
        lost = float(np.maximum(random, 0).mean() - np.maximum(table["fsc"], 0).mean())
        if lost > _WORSE:
            told.append(
                f"{name} has a lower FSC than random particles, as many as it holds: it may gather poor images rather"
                " than one structure."
            )
    return told


def _of_particles(run: SortedRun) -> list[str]:
    told, total = [], run.run.get("particles", 0)
    bad = run.run.get("bad_images", [])
    if bad:
        more = "" if len(bad) == 1 else f" and {len(bad) - 1} more"
        told.append(f"{len(bad)} image{'s are' if len(bad) > 1 else ' is'} bad and left out: {bad[0]}{more}.")
    left = total - run.run.get("accounted", total)
    if left > _MANY_UNACCOUNTED * total:
        told.append(f"{left} of {total} particles ({100 * left / total:.0f} %) are in no group.")
    if run.particles is not None:
        junk = int((run.particles.junk > 0.5).sum())
        if junk > _MUCH_JUNK * total:
            told.append(f"{junk} images ({100 * junk / total:.0f} %) are more likely junk than a particle.")
    # the sort itself says why there is but one group
    told += [line for line in run.log if line.startswith("One group")]
    return told
