"""The page for lecturers: its solutions run, its links lead somewhere, its minutes are the pages'."""

import itertools
import re
from pathlib import Path

import nbformat
import pytest
from test_claims import anchors

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "chapters" / "teaching.md").read_text(encoding="utf-8")
CHAPTERS = re.findall(r"file: chapters/(\d\w*)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
TASKS = dict(re.findall(r"^\(task-([\w-]+)\)=\n(.*?)(?=^\(task-|\Z)", PAGE, re.MULTILINE | re.DOTALL))
ROWS = re.findall(
    r"^\| \{numref\}`%s <(ch-[\w-]+)>`\. \[([^]]+)\]\((\w+)\.ipynb\) \| (.+?) \| (\d+) min \| (\d+) s \| "
    r"\[task\]\(#task-([\w-]+)\) \|$",
    PAGE,
    re.MULTILINE,
)


def test_every_chapter_has_a_row_and_an_assignment():
    assert [file for _, _, file, *_ in ROWS] == CHAPTERS
    assert [slug for *_, slug in ROWS] == list(TASKS)


@pytest.mark.parametrize("row", ROWS, ids=[row[2] for row in ROWS])
def test_a_row_has_the_title_of_its_chapter_and_minutes_that_its_words_take(row):
    label, title, file, outcome, minutes, seconds, slug = row
    cells = nbformat.read(ROOT / "chapters" / f"{file}.ipynb", 4).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert texts[0].startswith(f"({label})=\n# {title}\n")
    assert f"\n### {title}\n" in f"\n{TASKS[slug]}"
    words = len(re.sub(r":::\{[^}]*\}|\{[\w:]+\}`[^`]*`|\]\([^)]*\)", "", " ".join(texts)).split())
    assert abs(int(minutes) - words / 100) <= 5, f"{words} words"
    assert outcome and int(seconds) % 5 == 0


@pytest.mark.parametrize("slug", TASKS)
def test_a_solution_asserts_and_runs(slug):
    [code] = re.findall(r"^:::\{dropdown\} Solution\n```python\n(.*?)```\n:::$", TASKS[slug], re.MULTILINE | re.DOTALL)
    assert "\n*Asserted:* " in TASKS[slug]
    assert len(re.findall(r"^ *(?:assert |torch\.testing\.assert_close)", code, re.MULTILINE)) >= 1
    assert max(map(len, code.splitlines())) <= 80
    exec(compile(code, slug, "exec"), {})


def test_links_lead_somewhere_and_minutes_of_a_lecture_follow_each_other():
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors().keys()
    assert set(re.findall(r"\{prf:ref\}`([\w-]+)`", PAGE)) <= anchors().keys()
    spans = [tuple(map(int, span)) for span in re.findall(r"^\| (\d+)–(\d+) \|", PAGE, re.MULTILINE)]
    assert len(spans) == 19 and [end for _, end in spans if end >= 75] == [75, 75, 80, 90]
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert start in (0, end)
