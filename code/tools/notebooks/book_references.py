"""Read what the book's citations, labels and words of the glossary are called on the site, and where they lead.

Numbers are those that the site's build gives: the pages of a part of `_toc.yml` with `numbered: 1` are counted through
the whole book, and theorems and figures by chapter, each kind for itself.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

import nbformat
import yaml
from docutils.nodes import make_id
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from pybtex.database import parse_file
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle
from sphinxcontrib.bibtex.style.template import year

__all__ = ["EXTENSIONS", "NUMBERED", "PARSER", "TITLE", "BookReferences", "directive", "read_references"]

EXTENSIONS = {"amsmath", "colon_fence", "deflist", "dollarmath", "fieldlist", "attrs_inline"}  # as in _config.yml
PARSER = create_md_parser(MdParserConfig(enable_extensions=EXTENSIONS), RendererHTML)
NUMBERED = ("theorem", "corollary", "lemma", "proposition", "definition", "remark", "example")  # each has its own count
DIRECTIVE = re.compile(r"\{([^}]*)\}\s*(.*)", re.DOTALL)
TITLE = ("heading_open", "h1")
OPTION = re.compile(r":([\w-]+):[ \t]*(.*)\n?")


@dataclass
class BookReferences:
    """What the book's references lead to.

    Attributes
    ----------
    citations : dict of str to (str, str, str or None)
        Key of an entry of `references.bib`: its authors, its year and its address.
    numbers : dict of str to str
        Page that has a number: the number.
    chapters : dict of str to (str, str)
        Label of such a page's title: the page and its number.
    figures : dict of str to (str, str)
        Name of a figure: its page and its number, such as "3.2".
    proofs : dict of str to (str, str)
        Label of a theorem: its page, and the kind and number that the site gives it, such as "Theorem 3.1".
    terms : dict of str to str
        Word of the glossary, in small letters: its anchor.
    anchors : dict of str to (dict of str to str)
        Page, such as "chapters/01_arithmetic": its labels and their anchors.
    """

    citations: dict = field(default_factory=dict)
    numbers: dict = field(default_factory=dict)
    chapters: dict = field(default_factory=dict)
    figures: dict = field(default_factory=dict)
    proofs: dict = field(default_factory=dict)
    terms: dict = field(default_factory=dict)
    anchors: dict = field(default_factory=dict)


def read_references(root):
    """Read the book's references from its sources.

    Parameters
    ----------
    root : pathlib.Path
        The book: the folder of `_toc.yml` and `references.bib`.

    Returns
    -------
    BookReferences
    """
    found, counts = BookReferences(), Counter()
    style = AuthorYearReferenceStyle()
    for key, entry in parse_file(str(root / "references.bib"), bib_format="bibtex").entries.items():
        data = {"entry": entry, "style": style}
        authors = str(style.person.author_or_editor_or_title(full=False).format_data(data))
        doi = entry.fields.get("doi")
        address = f"https://doi.org/{doi}" if doi else entry.fields.get("url")
        address = address and address.replace("(", "%28").replace(")", "%29")
        found.citations[key] = (authors.replace("et al.", "*et al.*"), str(year.format_data(data)), address)
    contents = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    pages = [contents["root"]]
    for part in contents.get("parts", [contents]):
        for chapter in part.get("chapters", []):
            pages.append(chapter["file"])
            if part.get("numbered"):
                found.numbers[chapter["file"]] = str(len(found.numbers) + 1)
    for page in pages:
        labels = found.anchors[page] = {}
        if (root / f"{page}.md").is_file():
            texts = [(root / f"{page}.md").read_text(encoding="utf-8")]
        else:
            cells = nbformat.read(root / f"{page}.ipynb", as_version=4).cells
            texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
            figures = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
            for figure in filter(None, figures):
                labels[figure] = make_id(figure)
                found.figures[figure] = (page, _next(found, counts, page, "figure"))
        for text in texts:
            _read_labels(text, page, found, counts)
    return found


def _next(found, counts, page, kind):
    """Count one more of a kind, in its chapter; pages without a number are counted together."""
    chapter = found.numbers.get(page)
    counts[chapter, kind] += 1
    return f"{chapter}.{counts[chapter, kind]}" if chapter else str(counts[chapter, kind])


def _read_labels(text, page, found, counts):
    tokens = PARSER.parse(text)
    for at, token in enumerate(tokens):
        if token.type == "myst_target":
            found.anchors[page][token.content] = make_id(token.content)
            if page in found.numbers and [(after.type, after.tag) for after in tokens[at + 1 : at + 2]] == [TITLE]:
                found.chapters[token.content] = (page, found.numbers[page])
        name, _, options, body = directive(token)
        if name == "glossary":
            words = re.findall(r"^[^\s:].*", body, re.MULTILINE)
            found.terms.update({word.lower(): "term-" + re.sub(r"[^\w.]+", "-", word).strip("-") for word in words})
        elif name.startswith("prf:"):
            kind, label = name.removeprefix("prf:"), options.get("label")
            number = _next(found, counts, page, kind)
            if label:
                found.anchors[page][label] = label
            if label and kind in NUMBERED:
                found.proofs[label] = (page, f"{kind.title()} {number}")
            _read_labels(body, page, found, counts)


def directive(token):
    """Take a directive apart.

    Parameters
    ----------
    token : markdown_it.token.Token

    Returns
    -------
    (str, str, dict of str to str, str)
        Name, title, options and body; the name is empty if the token is no directive.
    """
    match = DIRECTIVE.match(token.info) if token.type in ("fence", "colon_fence") else None
    if match is None:
        return "", "", {}, ""
    body, options = token.content, {}
    while option := OPTION.match(body):
        options[option[1]] = option[2].strip()
        body = body[option.end() :]
    return match[1], match[2].strip(), options, body.strip("\n")
