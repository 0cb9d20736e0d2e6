"""The page that shows the families, made from the files in their folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from hpcsort.averages.cluster import METHODS
from hpcsort.errors import InputError
from hpcsort.report import Report, provenance_rows, read_json

__all__ = ["CLUSTERS", "PICTURES", "SCORES", "write_report"]

CLUSTERS, SCORES = "clusters.json", "scores.csv"
PICTURES = {
    "map": "best_cluster_visualization_with_images.png",
    "members": "all_clusters_with_labels.png",
    "tree": "dendrogram.png",
}
_LARGEST_BYTES = 2_000_000
"""Of a picture on the page, which is to be sent around."""
_SHOWN = {
    "map": "averages as points of a plane, framed in the colours of their families",
    "members": "all members of the families, with id and score",
    "tree": "dendrogram of the averages",
}


def write_report(folder: Path) -> Path:
    """Draw the report of families from the files in their folder, and return the page.

    Raises
    ------
    InputError
        If the folder holds no families, or a file in it is damaged.
    OutputError
        If the report cannot be written.
    """
    found = read_json(folder / CLUSTERS)
    if not found:
        raise InputError(f"{folder / CLUSTERS} is missing, which the report is made of; run cluster-averages again.")
    count, families = len(found["labels"]), found["families"]
    report = Report(folder, f"{count} averages, {families} {'family' if families == 1 else 'families'}")
    for note in found["notes"]:
        report.text(note, "note")
    if found["one_family_test"] is not None:
        report.text(_verdict(found["one_family_test"]))
    report.heading("Families")
    table = _families(found["clusters"])
    report.table(table.columns, _texts(table))
    report.text(
        "Score: mean similarity of the members to the representative. Stability: mean Jaccard similarity to the likest"
        " cluster when averages are resampled; below 0.6 do not trust a family, above 0.85 it is highly stable. In the"
        " picture of the members: id and score.",
        "small",
    )
    report.panel("families", "", table=table)
    for name, words in _SHOWN.items():
        _show(report, folder / PICTURES[name], words)
    if (folder / SCORES).is_file():
        report.heading("Mean silhouettes")
        scores = pd.read_csv(folder / SCORES).pivot(index="clusters", columns="method", values="silhouette")
        ordered = scores.reindex(columns=list(METHODS)).reset_index()
        report.table(("families", *METHODS), _texts(ordered))
        report.panel("silhouettes", "", table=ordered)
    report.heading("Provenance")
    report.facts(provenance_rows(folder))
    return report.save()


def _show(report: Report, picture: Path, words: str) -> None:
    if not picture.is_file():
        report.text(f"{picture.name} is missing: {words}.", "note")
        return
    if picture.stat().st_size > _LARGEST_BYTES:
        report.text(f"{picture.name} is too large for this page: {words}.")
        return
    report.picture(picture, words)
    report.text(f"{picture.name}: {words}.", "small")


def _verdict(test: dict[str, Any]) -> str:
    alike = "no more than noisy copies of one view" if test["one_family"] else "by more than noise"
    return (
        f"The averages differ {alike}: what they leave beside their mean has a largest eigenvalue of"
        f" {test['common']:.2f}, and of at most {test['by_chance']:.2f} when turned at random (p = {test['p']:.2g})."
    )


def _families(clusters: list[dict[str, Any]]) -> pd.DataFrame:
    rows = []
    for cluster in clusters:
        scores = [member["score"] for member in cluster["members"] if member["score"] is not None]
        rows.append(
            {
                "cluster": f"{cluster['label']} (blank)" if cluster["blank"] else str(cluster["label"]),
                "averages": len(cluster["members"]),
                "size": f"{cluster['size']:.6g}",
                "representative": cluster["representative"],
                "score": sum(scores) / len(scores) if scores and not cluster["blank"] else None,
                "silhouette": cluster["silhouette"],
                "stability": cluster["stability"],
            }
        )
    return pd.DataFrame(rows)


def _texts(table: pd.DataFrame) -> list[list[str]]:
    """Texts of all cells; a number that is not known is a dash."""
    return [[_text(value) for value in row] for row in table.astype(object).to_numpy().tolist()]


def _text(value: Any) -> str:
    if pd.isna(value):
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
