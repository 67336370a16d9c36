"""The claims page has one row for every claim of the two discussions and the well-known texts."""

import re
from pathlib import Path

CHAPTERS = Path(__file__).parents[1] / "chapters"
PAGE = (CHAPTERS / "claims.md").read_text()
ALL_IDS = [f"F{i}" for i in range(1, 12)] + [f"W{i}" for i in range(1, 13)] + [f"L{i}" for i in range(1, 11)] + ["N1"]

# This list shrinks when a chapter settles one.
WITHOUT_A_VERDICT = set("""L8""".split())

ROWS = [
    [field.strip() for field in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| *[FWLN]\d+ *\|", line)
]


def test_every_claim_has_one_row_or_is_listed_as_without_a_verdict():
    settled = [row[0] for row in ROWS]
    assert sorted(settled) == sorted(set(ALL_IDS) - WITHOUT_A_VERDICT)
    listed = re.findall(r"\b[FWLN]\d+\b", PAGE.partition("## Without a verdict")[2])
    assert sorted(listed) == sorted(WITHOUT_A_VERDICT)


def test_rows_stand_in_the_order_of_their_ids():
    settled = [row[0] for row in ROWS]
    assert settled == [claim for claim in ALL_IDS if claim in settled]


def test_every_row_has_a_claim_a_verdict_a_reason_and_a_link_to_a_cell():
    notebooks = "".join(path.read_text() for path in CHAPTERS.glob("*.ipynb"))
    for claim, text, verdict, reason, where in ROWS:
        assert text and reason, claim
        assert verdict in ("true", "imprecise", "false", "open"), claim
        targets = re.findall(r"\]\(#([\w-]+)\)", where)
        assert targets, f"{claim} links to no cell"
        for target in targets:
            assert f"({target})=" in notebooks, f"{claim} links to {target}, which no chapter has"
