"""What is in a data set, before anybody trains on it. `hilum model explore` calls `explore`.

figures.py counts, intensity.py opens pictures, pictures.py draws, report.py says it in words.
"""

from pathlib import Path

from model.explore.figures import figures
from model.explore.intensity import intensity
from model.explore.report import page
from model.explore.words import count, warnings
from model.table import open_table

__all__ = ["explore"]


def explore(table: Path, images: Path | None, out: Path, *, pixels: int, seed: int) -> str:
    """Writes report.html and report.json into the folder `out`; returns the lines for the person who waits.

    `images`: the folder that is searched for the images; without it nothing is said about files and pixels.
    `pixels`: pictures that are opened, 0 for all. The same seed draws the same pictures.
    Raises BadData where the table can't be read; a picture that can't be is listed.
    """
    rows = open_table(table, images)
    found = {"table": table.name, "seed": seed, **figures(rows, files=images is not None)}
    found["pixels"] = intensity(rows, pixels, seed) if images is not None else None
    written = page(found, table.name).write(out, found)
    said = [
        f"{count(found['images'])} images of {count(found['patients'])} patients, {len(found['labels'])} labels."
    ]
    said += warnings(found)
    if found["strong_differences"]:
        said.append(
            f"Findings much more frequent in one view, sex, collection or size than in another: "
            f"{len(found['strong_differences'])} such differences, see Shortcuts in the report."
        )
    return "\n".join([*said, f"Report: {written}"])
