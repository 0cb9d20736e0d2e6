"""What cluster-averages writes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from hpcsort.averages.drawings import draw_dendrogram, draw_map, draw_members
from hpcsort.averages.merge import family_of, merge_averages, merged_poses
from hpcsort.averages.options import AveragesOptions
from hpcsort.averages.read import Averages, Particles
from hpcsort.averages.report import CLUSTERS, PICTURES, SCORES
from hpcsort.averages.story import Findings
from hpcsort.errors import OutputError
from hpcsort.io import atomic_write, write_particles, write_stack, write_tables, write_text_atomically
from hpcsort.report import PAGE, RECORD, clear_panels, picture_of

__all__ = ["claim_output", "write_outputs"]

_NAMES, _RESULTS = "best_clusters_with_names.txt", "best_results.txt"
_AVERAGES, _CLASSES, _PARTICLES = "merged_averages.mrcs", "merged_averages.star", "merged_particles.star"
_FILES = (_NAMES, _RESULTS, CLUSTERS, SCORES, _AVERAGES, _CLASSES, _PARTICLES, *PICTURES.values(), PAGE, RECORD)
_DPI = 80
_METHODS = {
    "kmeans": "kmeans",
    "ward": "hierarchical (Ward)",
    "average": "hierarchical (average linkage)",
    "none": "none (one family)",
}


def claim_output(options: AveragesOptions, averages: Averages) -> None:
    """Make the folder, and refuse before the work what would be refused after it.

    Raises
    ------
    OutputError
        If a file exists and is not to be replaced, is an input, or the folder cannot be made.
    """
    needed = {path.resolve() for path in averages.sources}
    for name in _FILES:
        path = options.output_dir / name
        if path.resolve() in needed:
            raise OutputError(f"{path} is an input and would be lost; choose another --output-dir")
        if path.exists() and not options.overwrite:
            raise OutputError(
                f"{path} exists already; choose another --output-dir or allow replacing it with --overwrite"
            )
    try:
        options.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write in {options.output_dir}: {error.strerror}; choose another --output-dir"
        ) from error


def write_outputs(options: AveragesOptions, findings: Findings) -> None:
    """Write all files.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    out, averages = options.output_dir, findings.averages
    for name in _FILES:
        # what an earlier run left would look like part of this one
        (out / name).unlink(missing_ok=True)
    clear_panels(out)
    write_text_atomically(out / _NAMES, _names(findings))
    write_text_atomically(out / _RESULTS, _results(findings))
    write_text_atomically(out / SCORES, _scores(findings))
    if options.extract != "classes":
        merged = merge_averages(averages, findings.families)
        write_stack(out / _AVERAGES, merged, merged.shape, averages.pixel_A or 1.0)
        write_tables(out / _CLASSES, {"model_classes": _classes(findings)})
    if averages.particles is not None and options.extract != "averages":
        _write_particles(out / _PARTICLES, averages, averages.particles, findings)
    for name, draw in (("map", draw_map), ("members", draw_members), ("tree", draw_dendrogram)):
        with atomic_write(out / PICTURES[name]) as temporary:
            temporary.write_bytes(picture_of(draw(findings), _DPI))
    write_text_atomically(out / CLUSTERS, json.dumps(_as_json(options, findings), indent=1, allow_nan=False) + "\n")


def _names(findings: Findings) -> str:
    """List ids in the form of the original program, best first."""
    lines = []
    for label, family in enumerate(findings.families):
        lines.append(f"Cluster {label}:")
        lines += [f"\t{number}" for number in findings.averages.ids[family.members].tolist()]
    return "\n".join(lines) + "\n"


def _results(findings: Findings) -> str:
    best = findings.best
    return f"Best clustering method: {_METHODS[best.method]}\nBest Silhouette Score: {best.silhouette}\n"


def _scores(findings: Findings) -> str:
    rows = [
        {
            "clusters": int(partition.labels.max()) + 1,
            "method": partition.method,
            "silhouette": round(partition.silhouette, 6),
            "smallest": int(np.bincount(partition.labels).min()),
            "chosen": int(partition is findings.best),
        }
        for partition in findings.tried
    ]
    frame = pd.DataFrame(rows, columns=["clusters", "method", "silhouette", "smallest", "chosen"])
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _classes(findings: Findings) -> pd.DataFrame:
    sizes = np.array([findings.averages.sizes[family.members].sum() for family in findings.families])
    total = sizes.sum()
    return pd.DataFrame(
        {
            "rlnReferenceImage": [f"{label + 1:06d}@{_AVERAGES}" for label in range(len(sizes))],
            "rlnClassNumber": np.arange(1, len(sizes) + 1),
            "rlnClassDistribution": sizes / (total if total > 0 else 1.0),
            "hpcsortAverages": [len(family.members) for family in findings.families],
            "hpcsortRepresentative": [int(findings.averages.ids[family.members[0]]) for family in findings.families],
            "hpcsortBlank": [int(family.blank) for family in findings.families],
        }
    )


def _write_particles(path: Path, averages: Averages, particles: Particles, findings: Findings) -> None:
    """Write the particles of all classes; those of no class are left out."""
    labels, poses = merged_poses(averages, particles, findings.families)
    table = particles.table
    origins = poses.shift_px * averages.pixel_A
    extra = {
        "rlnClassNumber": labels + 1,
        "rlnAnglePsi": poses.psi_deg.round(6),
        "rlnOriginXAngst": origins[:, 0].round(6),
        "rlnOriginYAngst": origins[:, 1].round(6),
        "hpcsortMirror": poses.mirror.astype(np.int64),
        "hpcsortUnmergedClassNumber": particles.class_ids,
    }
    frame = table.frame.drop(columns=["rlnOriginX", "rlnOriginY", "rlnIsFlip"], errors="ignore")
    write_particles(path, replace(table, frame=frame), extra, rows=labels >= 0)


def _as_json(options: AveragesOptions, findings: Findings) -> dict[str, object]:
    averages, best, test = findings.averages, findings.best, findings.test
    labels = family_of(findings.families, len(averages.ids))
    return {
        "similarity": options.similarity,
        "method": best.method,
        "silhouette": _number(best.silhouette),
        "families": len(findings.real_families),
        "one_family_test": None
        if test is None
        else {
            "common": _number(test.common),
            "by_chance": _number(test.by_chance),
            "p": test.p,
            "one_family": test.one_family,
        },
        "notes": list(findings.notes),
        "labels": {str(number): int(label) for number, label in zip(averages.ids, labels, strict=True)},
        "clusters": [
            {
                "label": label,
                "class_number": label + 1,
                "blank": family.blank,
                "representative": int(averages.ids[family.members[0]]),
                "size": _number(averages.sizes[family.members].sum()),
                "silhouette": _number(family.silhouette),
                "stability": _number(family.stability),
                "members": [
                    {
                        "id": int(averages.ids[row]),
                        "image": averages.names[row],
                        "size": _number(averages.sizes[row]),
                        "score": _number(family.scores[place]),
                        "psi_deg": _number(family.poses.psi_deg[place]),
                        "origin_px": [_number(value) for value in family.poses.shift_px[place]],
                        "mirror": bool(family.poses.mirror[place]),
                    }
                    for place, row in enumerate(family.members.tolist())
                ],
            }
            for label, family in enumerate(findings.families)
        ],
    }


def _number(value: float) -> float | None:
    """Return a number of at most 6 decimals; None for one that is not known."""
    return round(float(value), 6) if math.isfinite(value) else None
