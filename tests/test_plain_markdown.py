"""Plain Markdown for Colab: each construct of MyST, what is refused, and every chapter."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tools.notebooks.book_references import EXTENSIONS, PARSER, BookReferences
from tools.notebooks.plain_markdown import plain_markdown, read_references

ROOT = Path(__file__).parents[1]
SITE = "https://owner.github.io/repo/"
PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
NOTEBOOKS = [page for page in PAGES if (ROOT / f"{page}.ipynb").is_file()]
SMALL = BookReferences(
    citations={
        "odena": ("Odena *et al.*", "2016", "https://doi.org/10.1/x"),
        "cho": ("Cho and Saul", "2009", "https://a.org/b"),
        "web": ("Web article", "n.d.", None),
    },
    numbers={"chapters/one": "6", "chapters/two": "7"},
    chapters={"ch-one": ("chapters/one", "6"), "ch-two": ("chapters/two", "7")},
    figures={"fig_a": ("chapters/two", "7.3"), "fig-top": ("top", "1")},
    proofs={"thm-a": ("chapters/one", "Theorem 1"), "cor-b": ("chapters/two", "Corollary 4")},
    terms={"gain": "term-gain", "skip connection": "term-skip-connection"},
    anchors={
        "chapters/one": {"ch-one": "ch-one", "cell_x": "cell-x", "thm-a": "thm-a"},
        "chapters/two": {"ch-two": "ch-two", "cor-b": "cor-b", "fig_a": "fig-a"},
        "top": {"fig-top": "fig-top"},
    },
)


def plain(text):
    return plain_markdown(text, page="chapters/one", site=SITE, references=SMALL)


def cells(page):
    notebook = json.loads((ROOT / f"{page}.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("as in {cite}`odena`.", "as in [[Odena *et al.*, 2016](https://doi.org/10.1/x)]."),
        ("{cite:p}`cho`", "[[Cho and Saul, 2009](https://a.org/b)]"),
        (
            "{cite}`cho, odena`",
            "[[Cho and Saul, 2009](https://a.org/b), [Odena *et al.*, 2016](https://doi.org/10.1/x)]",
        ),
        ("{cite}`web`", f"[[Web article, n.d.]({SITE}chapters/references.html)]"),
        ("{cite:t}`odena` say", "Odena *et al.* [[2016](https://doi.org/10.1/x)] say"),
        ("by {prf:ref}`thm-a`,", "by **Theorem 1**,"),
        (
            'try <a href="#explorer?taps=1,2&open=forms">these `taps`</a>.',
            f"try [these `taps`]({SITE}chapters/one.html#explorer?taps=1,2&open=forms).",
        ),
        ("by {prf:ref}`cor-b`,", f"by [Corollary 4]({SITE}chapters/two.html#cor-b),"),
        ("{prf:ref}`the other <cor-b>`", f"[the other]({SITE}chapters/two.html#cor-b)"),
        (
            "{numref}`Chapter %s <ch-two>` and {numref}`%s\n<ch-two>`",
            f"[Chapter 7]({SITE}chapters/two.html#ch-two) and [7]({SITE}chapters/two.html#ch-two)",
        ),
        (
            "{numref}`fig_a`; {numref}`picture %s <fig-top>`",
            f"[Fig. 7.3]({SITE}chapters/two.html#fig-a); [picture 1]({SITE}top.html#fig-top)",
        ),
        ("(ch-one)=\n# A\n\n## B", "# 6. A\n\n## B"),
        ("a\n\n# {cite}`cho`", "a\n\n# 6. [[Cho and Saul, 2009](https://a.org/b)]"),
        ("a {index}`size mismatch`", "a size mismatch"),
        ("{index}`its start <bilinear initialisation>`", "its start"),
        ("its {term}`Gain`", f"its [Gain]({SITE}chapters/glossary.html#term-gain)"),
        ("{term}`skips <skip\nconnection>`", f"[skips]({SITE}chapters/glossary.html#term-skip-connection)"),
        ("[two](two.ipynb)", f"[two]({SITE}chapters/two.html)"),
        ("[`b`](two.md#cor-b)", f"[`b`]({SITE}chapters/two.html#cor-b)"),
        ("[up](../top.md 'x')".replace("'", '"'), f'[up]({SITE}top.html "x")'),
        ("[here](#cell_x)", f"[here]({SITE}chapters/one.html#cell-x)"),
        ("[there](#cor-b)", f"[there]({SITE}chapters/two.html#cor-b)"),
        ("[out](https://a.org/b#c) <https://a.org>", "[out](https://a.org/b#c) <https://a.org>"),
        ("`x = 1`{.python} and [two](two.ipynb){.wide #y}", f"`x = 1` and [two]({SITE}chapters/two.html)"),
        ("![dot](https://a.org/b.png){width=50%}", "![dot](https://a.org/b.png)"),
        ("a\n\n(cell_x)=\n## B", "a\n\n## B"),
        ("(cell_x)=", ""),
        ("% remark\na", "a"),
        ("$$ a + b $$ (eq-a)", "$$ a + b $$"),
        ("$$\na \\label{eq-a}\n$$", "$$\na \n$$"),
        ("\\begin{align}\na &= b \\label{c} \\\\\n\\end{align}", "$$\n\\begin{align}\na &= b \\\\\n\\end{align}\n$$"),
        ("a[^n] b[^m]\n\n[^n]: {cite}`cho`\n\n[^m]: M", "a¹ b²\n\n¹ [[Cho and Saul, 2009](https://a.org/b)]\n\n² M"),
        ("| a |\n|---|\n| {prf:ref}`thm-a` `|x` |", "| a |\n|---|\n| **Theorem 1** `|x` |"),
        ("> - {cite}`cho`\n>   b", "> - [[Cho and Saul, 2009](https://a.org/b)]\n>   b"),
    ],
)
def test_construct(source, expected):
    assert plain(source) == expected


UNTOUCHED = [
    "``{cite}`odena` `` and ``{prf:ref}`x` ``",
    "`[two](two.ipynb)` `[^n]` `$`{cite}",
    "```md\n:::{prf:theorem} T\n{cite}`odena`\n(cell)=\n[^n]\n```",
    "~~~\n{term}`x`\n~~~",
    "- a\n\n  ```\n  {cite}`odena`\n  ```",
    "    {cite}`odena`\n    (label)=",
    "$f[^2](x)$ and $a [b](c) {d}`$",
    "$$\nf[^n](two.ipynb)\n\\begin{aligned} a &= b \\end{aligned}\n$$",
    r"\{cite}, \[two\](x), \`a\`, 3 \$",
    "Half an interval [0, 1) and {braces}.",
    "[write](mailto:a@b.org) <c@d.org>",
    "| a | b |\n|:--|--:|\n| `c` | $d$ |",
    "1. a\n   - b\n\n---\n\n> c **d** *e*",
]


@pytest.mark.parametrize("source", UNTOUCHED)
def test_code_math_and_plain_markdown_stay(source):
    assert plain(source) == source


def test_a_label_of_two_pages_is_the_pages_own():
    anchors = {"chapters/one": {"x": "x-one"}, "chapters/two": {"x": "x-two"}, "chapters/three": {}}
    for page, expected in (("one", "one"), ("two", "two"), ("three", "one")):
        made = plain_markdown("[a](#x)", page=f"chapters/{page}", site=SITE, references=BookReferences(anchors=anchors))
        assert made == f"[a]({SITE}chapters/{expected}.html#x-{expected})"


def test_theorem_and_proof():
    source = """before
:::{prf:theorem} On `a` by {cite}`cho`
:label: thm-a

Let $a$ be {prf:ref}`cor-b`.

```md
:::{prf:proof}
```
:::
:::{prf:proof}
Clear:

- by {prf:ref}`thm-a`.
:::
after"""
    assert (
        plain(source)
        == f"""before

**Theorem 1 (On `a` by [[Cho and Saul, 2009](https://a.org/b)]).**

Let $a$ be [Corollary 4]({SITE}chapters/two.html#cor-b).

```md
:::{{prf:proof}}
```

**Proof.** Clear:

- by **Theorem 1**.

∎

after"""
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (":::{prf:corollary}\n:label: cor-b\nBody.\n:::", "**Corollary 4.**\n\nBody."),
        ("```{prf:proof}\nBody.\n```", "**Proof.** Body. ∎"),
        (":::{prf:proof}\n$$\na\n$$\n:::", "**Proof.**\n\n$$\na\n$$\n\n∎"),
        (
            "a\n\n:::{dropdown} Hint\nBy {prf:ref}`thm-a`.\n:::\n:::{dropdown} Solution\n$$\na\n$$\n:::\nb",
            "a\n\n<details><summary>Hint</summary>\n\nBy **Theorem 1**.\n\n</details>\n\n"
            "<details><summary>Solution</summary>\n\n$$\na\n$$\n\n</details>\n\nb",
        ),
        (
            "::::{prf:proof}\nA.\n:::{prf:corollary}\n:label: cor-b\nB.\n:::\n::::",
            "**Proof.** A.\n\n**Corollary 4.**\n\nB.\n\n∎",
        ),
    ],
)
def test_directive(source, expected):
    assert plain(source) == expected


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("{numref}`fig-z`", "chapter or figure 'fig-z'"),
        ("{numref}`chapter %s <cor-b>`", "chapter or figure 'cor-b'"),
        ("{numref}`ch-two`", "write chapter %s <ch-two>"),
        ("{numref}`Chapter {number} <ch-two>`", "has no %s"),
        ("{numref}`the chapter <ch-two>`", "has no %s"),
        ("{ref}`ch-two`", "role {ref}"),
        ("{cite:author}`cho`", "role {cite:author}"),
        ("{cite}`nobody`", "citation 'nobody'"),
        ("{cite}`cho,nobody`", "citation 'nobody'"),
        ("{prf:ref}`thm-z`", "label 'thm-z'"),
        ("{term}`gains`", "term 'gains'"),
        (":::{note}\na\n:::", "directive {note}"),
        (":::{dropdown} More\na\n:::", "dropdown 'More'"),
        (":::{dropdown} Hint\n:open:\na\n:::", "['open']"),
        (":::{dropdown} Hint\n{doc}`two`\n:::", "role {doc}"),
        ("<details><summary>More</summary>\n\na\n\n</details>", "html_block '<details>"),
        ("```{figure} a.png\n```", "directive {figure}"),
        (":::{prf:axiom}\n:label: thm-a\n:::", "directive {prf:axiom}"),
        (":::{theorem}\n:label: thm-a\n:::", "directive {theorem}"),
        (":::{prf:theorem}\na\n:::", "no label"),
        (":::{prf:theorem}\n:label: thm-z\na\n:::", "label 'thm-z'"),
        (":::{prf:theorem}\n:label: thm-a\n:nonumber:\na\n:::", "'nonumber'"),
        (":::{prf:proof}\n---\nclass: dropdown\n---\na\n:::", "'---'"),
        (":::{prf:proof}\n{doc}`two`\n:::", "role {doc}"),
        ("- :::{prf:proof}\n  a\n  :::", "colon_fence '{prf:proof}'"),
        (":::\na\n:::", "colon_fence"),
        ("[x](three.ipynb)", "'chapters/three'"),
        ("[x](two.ipynb#cell-x)", "label 'cell-x'"),
        ("[x](#cor-c)", "label 'cor-c'"),
        ("[](two.ipynb)", "[](two.ipynb) has no text"),
        ("[x][y]\n\n[y]: two.ipynb", "'two.ipynb'"),
        ("<project:#cell_x>", "'project:#cell_x'"),
        ("![x](a.png)", "'a.png'"),
        ("a[^n]", "footnote 'n'"),
        ("a[^n]\n\n[^n]: b\n\n    c", "footnote 'n'"),
        ("[^n]:", "footnote 'n'"),
        ("[a]{.b}", "span_open"),
        ("$$ a \\eqref{b} $$", "\\eqref"),
        ("$a \\label{b}$", "\\label"),
        ("a\n: b", "dl_open"),
        (":a: b", "field_list_open"),
        ("+++", "myst_block_break"),
        ("- (cell_x)=", "myst_target 'cell_x'"),
        ("---\na: b\n---\n", "front_matter"),
        ("a<br>b", "html_inline '<br>'"),
        ("<div>\n</div>", "html_block '<div>"),
    ],
)
def test_what_it_does_not_know_is_refused_by_name(source, named):
    with pytest.raises(ValueError, match=re.escape(named)) as error:
        plain(source)
    assert str(error.value).startswith("chapters/one: ")


def test_syntax_is_read_as_the_site_reads_it():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert set(config["parse"]["myst_enable_extensions"]) == EXTENSIONS


def test_no_text_types_the_number_of_a_chapter():
    """Chapters can be put in between; a chapter's number is made by the build, from its label."""
    typed = re.compile(r"\b[Cc]hapters?\s+\[?\d|\[\d+\]\(\w+\.(?:ipynb|md)|\b[Tt]heorems?\s+\d|\b[Ff]ig(?:ure|\.)\s+\d")
    for path in ROOT.glob("chapters/[!.]*.*"):
        text = re.sub(r'\\n",\s+"', " ", path.read_text(encoding="utf-8"))  # the lines of a cell
        assert typed.findall(text) == [], path.name


def test_numbers_of_a_book_in_parts(tmp_path):
    (tmp_path / "references.bib").touch()
    (tmp_path / "_toc.yml").write_text(
        "root: top\nparts:\n- chapters: [{file: a}]\n- {numbered: 1, chapters: [{file: b}, {file: c}]}\n"
        "- {numbered: true, chapters: [{file: d}]}\n"
    )
    theorem = "\n:::{{prf:{}}}\n:label: {}\n:::\n"
    for page in ("top", "a", "b", "c", "d"):
        label = f"(over)=\n\n(ch-{page})=\n# {page}\n\n(in-{page})=\n## in\n"
        kinds = ("theorem", "theorem", "lemma")
        (tmp_path / f"{page}.md").write_text(
            label + "".join(theorem.format(kind, f"{page}{n}") for n, kind in enumerate(kinds))
        )
    found = read_references(tmp_path)
    assert found.numbers == {"b": "1", "c": "2", "d": "3"}
    assert found.chapters == {"ch-b": ("b", "1"), "ch-c": ("c", "2"), "ch-d": ("d", "3")}
    proofs = {label: of for label, (_, of) in found.proofs.items()}
    expected = dict(c0="Theorem 2.1", c1="Theorem 2.2", c2="Lemma 2.1", top2="Lemma 1", a0="Theorem 3", a2="Lemma 2")
    assert {label: proofs[label] for label in expected} == expected


def test_references_of_a_book_with_brackets_and_no_author(tmp_path):
    (tmp_path / "_toc.yml").write_text("root: a\n")
    (tmp_path / "references.bib").write_text(
        "@misc{x, title={On {CNNs}}, doi={10.1/(a)b}, url={u}} @misc{y, author={A B and C D}, url={u}} "
        "@misc{z, author={A B and C D and E F}, year=2016}"
    )
    (tmp_path / "a.md").write_text(
        "(A_b)=\n# A\n\n:::{glossary}\nOff DC\n  A part.\nGain (DC)\n  B.\n:::\n\n```\n(c)=\n```\n\n"
        ":::{prf:theorem}\n:::\n\n::::{prf:proof}\n:::{prf:theorem}\n:label: t\n:::\n::::\n"
    )
    found = read_references(tmp_path)
    assert found.citations == {
        "x": ("On CNNs", "n.d.", "https://doi.org/10.1/%28a%29b"),
        "y": ("B and D", "n.d.", "u"),
        "z": ("B *et al.*", "2016", None),
    }
    assert found.terms == {"off dc": "term-Off-DC", "gain (dc)": "term-Gain-DC"}
    assert found.anchors == {"a": {"A_b": "a-b", "t": "t"}}
    assert found.proofs == {"t": ("a", "Theorem 2")}


def tokens(text):
    """All tokens of a text, those inside its directives too."""
    for token in PARSER.parse(text):
        yield from token.children or [token]
        if token.type == "colon_fence":
            yield from tokens(re.sub(r"\A:label:.*\n", "", token.content))


def literals(text):
    kinds = ("code_inline", "math_inline", "math_block", "fence", "code_block")
    return [(token.type, token.content) for token in tokens(text) if token.type in kinds]


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_chapter(page):
    """That its links lead somewhere is seen in the built site, in test_site.py."""
    references = read_references(ROOT)
    for source in cells(page):
        result = plain_markdown(source, page=page, site=SITE, references=references)
        assert literals(result) == literals(source)
        shown = [token.content for token in tokens(result) if token.type == "text"]
        assert not [text for text in shown if re.search(r":::|\{[\w:]+\}|\]\(|\[\^|^\(\S+\)=|\*", text)]
        titles = re.findall(r"^:::\{[^}]*\}(.*)", source, re.MULTILINE)
        assert not [title for title in titles if "`" in title]  # else count their roles below
        before = list(tokens(source))
        expected = sum(token.type == "link_open" or token.content.startswith("<a ") for token in before)
        for token in before:
            if token.type == "myst_role" and token.meta["name"] != "index":  # which links nowhere
                cited, local = token.content.split(","), references.proofs.get(token.content, [""])[0] == page
                expected += len(cited) if token.meta["name"] == "cite" else not local
        assert sum(token.type == "link_open" for token in tokens(result)) == expected
