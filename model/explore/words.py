"""Figures in words: what is wrong with the data, and how numbers are written."""

from collections.abc import Iterable
from typing import Any

from model.explore.figures import ADULT, FEWEST, OLDEST

Figures = dict[str, Any]


def warnings(found: Figures) -> list[str]:
    """What is wrong with the data, or will mislead whoever trains on them; one sentence each."""
    said = []
    impossible, absent, pixels = found["ages"]["impossible"], found["missing_files"], found.get("pixels")
    if impossible["count"]:
        said.append(
            f"Impossible ages (below 0 or above {OLDEST} years): {count(impossible['count'])}, "
            f"the greatest {impossible['greatest']:g}."
        )
    if found["ages"]["unknown"]:
        said.append(f"Images without an age: {count(found['ages']['unknown'])}.")
    if found["ages"]["children"]:
        said.append(f"Images of patients under {ADULT} years: {count(found['ages']['children'])}.")
    if found["images_without_patient"]:
        said.append(
            f"Images that name no patient: {count(found['images_without_patient'])}; "
            "nobody can keep one patient's images in one split."
        )
    if absent and absent["count"]:
        said.append(f"Missing files: {count(absent['count'])}: {some(absent['images'], absent['count'])}.")
    if pixels and pixels["unreadable"]:
        several = [f"{each['image']} ({each['reason']})" for each in pixels["unreadable"]]
        said.append(
            f"Unreadable pictures: {count(len(several))} of {count(pixels['drawn'])}: "
            f"{some(several[:5], len(several))}."
        )
    if pixels and pixels["blank"]["count"]:
        blank = pixels["blank"]
        said.append(
            f"Pictures as good as empty: {count(blank['count'])}: {some(blank['images'], blank['count'])}."
        )
    if found["splits"].get("patients_in_two"):
        said.append(f"Patients in two splits: {count(found['splits']['patients_in_two'])}. That leaks.")
    if found["follow_up"]["patients_with_several"]:
        several_images = found["follow_up"]["patients_with_several"]
        said.append(f"Patients with several images: {count(several_images)}. Split by patient.")
    for name, label in found["prevalence"].items():
        if label["unknown"]:
            said.append(
                f"{name} is unknown in {count(label['unknown'])} of {count(found['images'])} images: "
                "unknown is not absent, leave them out of its figures and its loss."
            )
        if label["known"] and label["positive"] < FEWEST:
            said.append(
                f"{name} is present in {count(label['positive'])} of {count(label['known'])} images: "
                "too few to judge a model by."
            )
    return said


def difference(each: Figures) -> str:
    ratio = f"{each['ratio']:.1f} times as frequent" if each["ratio"] else "never in the latter"
    return (
        f"{each['finding']}: {percent(each['most_share'])} in {each['by']} {each['most']}, "
        f"{percent(each['least_share'])} in {each['by']} {each['least']} ({ratio})."
    )


def some(names: Iterable[str], of: int) -> str:
    shown = list(names)
    return ", ".join(shown) + (", …" if of > len(shown) else "")


def count(number: int) -> str:
    return f"{number:,}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.{2 if 0 < share < 0.01 else 1}f} %"


def times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1f}"


def interval(label: Figures) -> str:
    return "-" if label["low"] is None else f"{percent(label['low'])} to {percent(label['high'])}"


def years(group: Figures) -> str:
    return "unknown" if group["median"] is None else f"{group['median']:g}"


def share_of(group: Figures, key: str, word: str) -> str:
    return percent(group[key].get(word, 0) / group["images"]) if group["images"] else "-"
