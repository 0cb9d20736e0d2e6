"""What --json tells of each program's result: paths and key figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcsort.averages import AveragesOptions, Findings
    from hpcsort.cl2d import Cl2dResult
    from hpcsort.matching import MatchOptions, MatchResult
    from hpcsort.pairs import PairsResult
    from hpcsort.reconstruction import ConicalClass, ConicalOptions, Reconstruction, ReconstructOptions

__all__ = [
    "cl2d_figures",
    "conical_figures",
    "family_figures",
    "match_figures",
    "pairs_figures",
    "reconstruct_figures",
    "sort_figures",
]

_OF_SORT = ("particles", "accounted", "warnings", "seed", "ranks", "seconds", "peak_memory_GB_of_a_node")


def sort_figures(folder: Path) -> dict[str, Any]:
    """Figures of a sort that has come to its end, as its folder tells them."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    ending = record["options"]["map_format"]
    groups = [
        {
            **group,
            "list": folder / f"Cluster_{number:03d}.txt",
            "map": folder / f"vol_cluster{number:03d}.{ending}",
        }
        for number, group in enumerate(record["groups"])
    ]
    return {
        **_folder(folder, star="particles.star", unaccounted="Core_set.txt", record="run.json"),
        **{name: record[name] for name in _OF_SORT},
        "groups": groups,
    }


def cl2d_figures(folder: Path, result: Cl2dResult | None) -> dict[str, Any]:
    """Figures of a classification; only its files are known of one that had come to its end before."""
    if result is None:
        return _folder(folder)
    levels = [{"classes": level.state.classes, "sizes": level.state.sizes.tolist()} for level in result.levels]
    return {**_folder(folder), "star": result.folder / "particles.star", "levels": levels}


def pairs_figures(folder: Path, result: PairsResult | None) -> dict[str, Any]:
    """Figures of an extraction; only its files are known of one that had come to its end before."""
    files = _folder(folder, untilted="untilted.star", tilted="tilted.star", pairs="pairs.star", losses="losses.csv")
    if result is None:
        return files
    lost = sum(loss.particles for loss in result.losses)
    return {**files, "kept": result.kept, "lost": lost, "micrograph_pairs": len(result.pairs)}


def match_figures(options: MatchOptions, result: MatchResult) -> dict[str, Any]:
    """Figures of a projection matching, on rank 0."""
    assert result.smears is not None
    particles = [int((result.reference == number).sum()) for number in range(len(options.references))]
    poses = float(result.smears.counts.mean())
    return {"star": options.output, "particles_of_references": particles, "poses_of_a_particle": poses}


def reconstruct_figures(options: ReconstructOptions, result: Reconstruction) -> dict[str, Any]:
    """Figures of a reconstruction, on rank 0."""
    folder, stem, ending = options.output.parent, options.stem, options.map_format
    figures: dict[str, Any] = {"map": folder / f"{stem}.{ending}", "particles": len(result.rows)}
    if options.halves:
        figures["half_maps"] = [folder / f"{stem}_half{number}.{ending}" for number in (1, 2)]
        figures["fsc"] = folder / f"{stem}_fsc.txt"
    return {**figures, "resolution_A": result.resolution_A, "resolution_half_A": result.resolution_half_A}


def conical_figures(options: ConicalOptions, classes: list[ConicalClass]) -> dict[str, Any]:
    """Figures of a random conical tilt, on rank 0."""
    folder = options.maps.output.parent
    return {
        "log": options.log,
        "classes": [
            {
                "number": each.number,
                "particles": len(each.table),
                "resolution_A": each.resolution_A,
                "unmeasured": each.unmeasured,
                "map": folder / f"{options.stem(each.number)}.{options.maps.map_format}",
                "star": folder / f"{options.stem(each.number)}.star",
            }
            for each in classes
        ],
    }


def family_figures(options: AveragesOptions, findings: Findings) -> dict[str, Any]:
    """Figures of a clustering of averages, on rank 0."""
    best = findings.best
    return {
        **_folder(options.output_dir, families="best_clusters_with_names.txt"),
        "averages": len(findings.rows),
        "sizes": [len(family.members) for family in findings.real_families],
        "method": best.method,
        "silhouette": best.silhouette,
    }


def _folder(folder: Path, **names: str) -> dict[str, Any]:
    """Folder of the results and the files in it that are there."""
    files = {**names, "log": "log.txt", "report": "report.html"}
    return {"output_dir": folder, **{key: folder / name for key, name in files.items() if (folder / name).is_file()}}
