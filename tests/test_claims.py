"""The trial of the sources: one row for every claim, each with a verdict, a reason and links to what shows it."""

import functools
import re
from pathlib import Path

import nbformat
import pytest

from upconv.book.comparison import REFERENCE, runs_of
from upconv.book.results import read_results
from upconv.book.tables import signed
from upconv.book.tasks import AUTOENCODER, SUPER_RESOLUTION, UNET
from upconv.book.verdicts import compare

CHAPTERS = Path(__file__).parents[1] / "chapters"
PAGE = (CHAPTERS / "claims.md").read_text(encoding="utf-8")
ALL_IDS = [f"{kind}{i}" for kind, last in (("F", 11), ("W", 12), ("L", 10), ("N", 8)) for i in range(1, last + 1)]
OPEN = {"L8", "N6", "N8"}
DIFFERENCE = r"[−+]?\b\d+\.\d+ ± \d+\.\d+"

ROWS = [
    [field.strip() for field in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| *[A-Z]\d+ *\|", line)
]


@functools.cache
def anchors():
    """What a link can lead to, labels, theorems and figures, and the file of each."""
    found = {}
    for path in [*CHAPTERS.glob("*.ipynb"), *CHAPTERS.glob("*.md")]:
        text = path.read_text(encoding="utf-8")
        labels = r'(?:"|\\n|^)\(([\w-]+)\)=', r":label: ([\w-]+)", r'"name": "(fig-[\w-]+)"'
        found |= {name: path for label in labels for name in re.findall(label, text, re.MULTILINE)}
    return found


@functools.cache
def printed(path):
    """The differences that the cells of a chapter print, such as "+0.05 ± 0.03"."""
    cells = nbformat.read(path, 4).cells if path.suffix == ".ipynb" else []
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    texts = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs]
    texts = [text.replace("\N{NO-BREAK SPACE}", " ").replace("-", "−") for text in texts]
    return {number for text in texts for number in re.findall(DIFFERENCE, text)}


def links(text):
    return re.findall(r"\]\(#([\w-]+)\)", text) + re.findall(r"\{prf:ref\}`([\w-]+)`", text)


def test_every_claim_has_exactly_one_row_in_the_order_of_the_ids():
    assert [row[0] for row in ROWS] == ALL_IDS


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_has_a_claim_a_verdict_a_reason_and_links_to_what_shows_it(row):
    claim, text, verdict, why = row
    assert text and verdict in ("true", "imprecise", "false", "open")
    assert (verdict == "open") == (claim in OPEN)
    if verdict == "open":
        assert "What would settle it: " in why
    reason, _, where = why.rpartition("Known so far: " if verdict == "open" else "Shown: ")
    assert reason
    assert links(where), "no link after the reason"
    targets = links(why)
    assert set(targets) <= anchors().keys()
    assert not [target for target in targets if target.startswith("ch-")], "the top of a chapter shows nothing"


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_difference_is_printed_in_a_chapter_that_the_row_links_to(row):
    """Where the row gives no sign, as in "behind by 1.2 ± 0.6", either will do."""
    known = set().union(*(printed(anchors()[target]) for target in links(row[3])))
    known |= {number.lstrip("−+") for number in known}
    assert [number for number in re.findall(DIFFERENCE, row[3]) if number not in known] == []


def test_differences_are_found():
    assert sum(len(re.findall(DIFFERENCE, row[3])) for row in ROWS) > 40


OF_TABLES = [  # who is compared with nearest + conv 3x3, how, in which rows
    (AUTOENCODER, "parameters", "conv_transpose_4x4", "W5 L7 N3"),
    (SUPER_RESOLUTION, "parameters", "conv_transpose_4x4", "W5 L7 N3"),
    (AUTOENCODER, "time", "conv_transpose_4x4", "W5 L7"),
    (SUPER_RESOLUTION, "time", "conv_transpose_4x4", "W5 L7"),
    (AUTOENCODER, "channels", "conv_transpose_2x2", "W5"),
    (SUPER_RESOLUTION, "channels", "conv_transpose_2x2", "W5"),
    (SUPER_RESOLUTION, "channels", "conv_transpose_3x3", "W5"),
    (AUTOENCODER, "channels", "conv_transpose_4x4", "N3"),
    (AUTOENCODER, "channels", "bilinear_conv_3x3", "W7"),
    (SUPER_RESOLUTION, "channels", "bilinear_conv_3x3", "W7"),
    (AUTOENCODER, "channels", "bicubic_conv_3x3", "W7"),
    (SUPER_RESOLUTION, "channels", "bicubic_conv_3x3", "W7"),
    (UNET, "channels", "conv_transpose_2x2", "F1"),
    (UNET, "channels", "conv_transpose_4x4", "F1 L7"),
    (UNET, "channels", "bilinear_conv_3x3", "W6 W12"),
    (UNET, "time", "bilinear_conv_3x3", "W6"),
    (UNET, "parameters", "conv_transpose_4x4", "L7"),
]


@pytest.mark.parametrize(("task", "kind", "block", "rows"), OF_TABLES)
def test_the_differences_are_those_of_the_blocks_that_the_row_names(task, kind, block, rows):
    runs = read_results(task.name)
    if task is UNET:
        runs = runs[runs["skips"] == 2]
    sides = f"{task.primary}_end", block, REFERENCE
    found = compare(runs_of(runs, kind), *sides, by="upsampling", paired=task is not UNET)
    number = signed(found._asdict(), ".1%" if task is UNET else ".2f").replace("-", "−")
    [number] = re.findall(DIFFERENCE, number)
    for claim, _, _, why in ROWS:
        if claim in rows.split():
            assert number in why or number.lstrip("−+") in re.findall(DIFFERENCE, why), (claim, number)
