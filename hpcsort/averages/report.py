"""The page that shows the families."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hpcsort.averages.cluster import METHODS
from hpcsort.averages.story import Findings
from hpcsort.report import Page

__all__ = ["write_report"]


def write_report(path: Path, findings: Findings, pictures: Iterable[Path]) -> None:
    """Write one HTML file with all pictures in it.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    count, test = len(findings.real_families), findings.test
    page = Page(f"{len(findings.averages.ids)} averages, {count} {'family' if count == 1 else 'families'}")
    for note in findings.notes:
        page.text(note, "note")
    if test is not None:
        verdict = "no more than noisy copies of one view" if test.one_family else "by more than noise"
        page.text(
            f"The averages differ {verdict}: what they leave beside their mean has a largest eigenvalue of"
            f" {test.common:.2f}, and of at most {test.by_chance:.2f} when turned at random (p = {test.p:.2g})."
        )
    page.heading("Families")
    page.table(
        ("cluster", "averages", "size", "representative", "score", "silhouette", "stability"), _family_rows(findings)
    )
    page.text(
        "Score: mean similarity of the members to the representative. Stability: mean Jaccard similarity to the likest"
        " cluster when averages are resampled; below 0.6 do not trust a family, above 0.85 it is highly stable. In the"
        " picture of the members: id and score.",
        "small",
    )
    for picture in pictures:
        page.picture(picture, picture.stem)
    page.heading("Mean silhouettes")
    page.table(("families", *METHODS), _silhouette_rows(findings))
    page.write(path)


def _family_rows(findings: Findings) -> list[list[object]]:
    rows: list[list[object]] = []
    for label, family in enumerate(findings.families):
        size = findings.averages.sizes[family.members].sum()
        score = np.nan if family.blank else family.scores.mean()
        representative = int(findings.averages.ids[family.members[0]])
        values = [_text(value) for value in (score, family.silhouette, family.stability)]
        name = f"{label} (blank)" if family.blank else str(label)
        rows.append([name, len(family.members), f"{size:.6g}", representative, *values])
    return rows


def _silhouette_rows(findings: Findings) -> list[list[object]]:
    scores: dict[int, dict[str, float]] = {}
    for partition in findings.tried:
        scores.setdefault(int(partition.labels.max()) + 1, {})[partition.method] = partition.silhouette
    return [[k, *(_text(found.get(name, np.nan)) for name in METHODS)] for k, found in sorted(scores.items())]


def _text(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"
