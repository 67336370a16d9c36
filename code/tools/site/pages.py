"""What is done to the pages that Sphinx has written: formulas set, weight taken off, links added, faults mended.

A fault here is one that axe-core finds, or a browser's console, in what the theme and the extensions write.
"""

import re
from collections import defaultdict

from bs4 import BeautifulSoup

from tools.site import formulas, icons

__all__ = ["Page", "finish", "link_glossary", "link_index", "link_module", "mend", "say_time"]

WORDS_A_MINUTE = 200
EVERYDAY = {"exact", "gather", "scale", "scatter"}  # words that stand in sentences in another sense, too
TEX = re.compile(r"\\[(\[](.*)\\[)\]]", re.DOTALL)
PLACE = re.compile(r"\{\{formula (\d+)\}\}")
# Scripts for what no page has: icons that a script draws and, but on the search's own page, the search.
UNUSED = ("scripts/fontawesome.js", "searchtools.js", "language_data.js", "searchindex.js")
# Paper is white, whatever the screen was.
PRINT = """
  addEventListener("beforeprint", () => {
    const { dataset } = document.documentElement;
    dataset.shown = dataset.theme;
    dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = document.documentElement.dataset.shown;
  });
"""
# The search's excerpts: no formula twice, and an entry of the index, which has no text, is its section.
ANCHOR = "if (anchorContent) return anchorContent.textContent;"
SECTION = 'anchorContent.closest("section, [role=main]").textContent'
EXCERPTS = (
    ('[".headerlink", "script", "style"]', '[".headerlink", "script", "style", ".katex-mathml"]'),
    (ANCHOR, f'if (anchorContent?.textContent.trim() === "") return {SECTION};\n      {ANCHOR}'),
)


class Page:
    """A page, parsed.

    Parameters
    ----------
    path : pathlib.Path
        Its file.

    Attributes
    ----------
    html : bs4.BeautifulSoup
    of : dict of str to list of bs4.Tag
        Its elements by `tag`, `.class` and `#id`, in one pass: selectors would take a minute for all pages.
    up : str
        The way to the site's first folder: empty or `../`.
    number : int or None
        A chapter's.
    """

    def __init__(self, path):
        self.path, self.html = path, BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        self.up = "../" if path.parent.name == "chapters" else ""
        self.of = defaultdict(list)
        for element in self.html.find_all(True):
            names = [f".{name}" for name in element.get("class", ())]
            for name in [element.name, *names, *([f"#{element['id']}"] if element.get("id") else [])]:
                self.of[name].append(element)
        self.title = next((title for title in self.of["h1"] if title.find_parent("article")), None)
        self.number = None
        if self.title and (found := re.match(r"(\d+)\. ", self.title.get_text())):
            self.number = int(found[1])

    def new(self, tag, text="", **attributes):
        """Make an element that holds a text; an attribute `class_` is the class."""
        names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        element = self.html.new_tag(tag, attrs=names)
        element.string = text
        return element


def finish(output):
    """Change all pages of a site, and its style sheets and scripts, in place.

    Parameters
    ----------
    output : pathlib.Path
        The folder that Sphinx has filled.

    Raises
    ------
    ValueError
        If a formula can't be set, or the theme's files are not as expected.
    """
    pages = [Page(path) for path in sorted([*output.glob("*.html"), *output.glob("chapters/*.html")])]
    pages = [page for page in pages if page.of["main"]]  # but the one that leads to another
    link_module(pages)
    link_glossary(pages)
    found = []
    for page in pages:
        mend(page)
        link_index(page)
        say_time(page)
        if page.of[".math"]:
            page.html.head.append(page.new("link", rel="stylesheet", href=f"{page.up}_static/katex/katex.css"))
        for element in page.of[".math"]:
            tex = TEX.fullmatch(element.get_text().strip())
            element.string = f"{{{{formula {len(found)}}}}}"
            found.append((tex[1].strip(), element.name == "div"))
    made = formulas.typeset(found)
    texts = []
    for page in pages:
        texts.append(PLACE.sub(lambda place: made[int(place[1])], str(page.html)))
        page.path.write_text(texts[-1], encoding="utf-8", newline="\n")

    static = output / "_static"
    formulas.add_stylesheet(static / "katex")
    for path in static.glob("scripts/fontawesome.js*"):
        path.unlink()
    icons.thin_out(static, [*texts, *(path.read_text(encoding="utf-8") for path in static.rglob("*.js"))])
    path = static / "searchtools.js"
    text = path.read_text(encoding="utf-8")
    for theirs, ours in EXCERPTS:
        if text.count(theirs) != 1:
            raise ValueError(f"{path.name} takes its excerpts in another way than expected")
        text = text.replace(theirs, ours)
    path.write_text(text, encoding="utf-8", newline="\n")


def mend(page):
    """Mend what keeps people from using a page, and leave out what it doesn't need.

    Parameters
    ----------
    page : Page
        Changed in place.
    """
    _leave_out(page)
    _name_parts(page)
    page.html.head.append(page.new("script", PRINT))
    for entry in page.of[".citation"]:  # whose list of `doc-biblioentry` is no longer one
        entry["role"] = "listitem"
    for cell in page.of["th"]:
        if not cell.get_text().strip():
            cell.name = "td"
    for block in page.of["div"]:
        if "math" in block.get("class", ()) or "overflow-x:auto" in block.get("style", ""):
            # the theme's script lets the keyboard scroll what has this class
            block["class"] = [*block.get("class", ()), "pst-scrollable-table-container"]
    for name, elements in page.of.items():
        for again in elements[1:] if name[0] == "#" else ():
            del again["id"]


def _leave_out(page):
    for script in page.of["script"]:
        name = script.get("src", "").partition("?")[0]
        if name.endswith(UNUSED[:1] if page.path.stem == "search" else UNUSED):
            script.extract()
    for cell in page.of[".tag_bootstrap"]:  # finds the module in a clone: nothing to read
        cell.extract()
    for more in [meta for meta in page.of["meta"] if meta.get("name") == "viewport"][1:]:
        more.extract()


def _name_parts(page):
    for link in page.of[".btn-source-file-button"]:  # gh-pages has the copies, main the sources
        link["href"] = link["href"].replace("/blob/gh-pages/_sources/", "/blob/main/").removesuffix("?plain=1")
    for sidebar in page.of["#pst-primary-sidebar"]:
        sidebar["role"], sidebar["aria-label"] = "complementary", "The book"
    for button in [*page.of["button"], *page.of["summary"]]:
        if button.get_text().strip():
            del button["aria-label"]  # another name than the one that can be seen
        elif "title" in button.attrs:
            button["aria-label"] = button["title"]
    for formula in page.of[".math"]:
        if formula.parent.name == "a" and formula.parent.get_text().strip() == formula.get_text():
            formula.parent["aria-label"] = formula.get_text().strip("\\()")  # MathML does not name a link


def link_index(page):
    """Link the index beside the other pages.

    Parameters
    ----------
    page : Page
        Changed in place.
    """
    here = page.path.stem == "genindex"
    for pages in page.of[".bd-sidenav"][-1:]:
        entry = page.new("li", class_="toctree-l1 current active" if here else "toctree-l1")
        address = "#" if here else f"{page.up}genindex.html"
        entry.append(page.new("a", "Index", class_="current reference internal", href=address))
        pages.append(entry)


def say_time(page):
    """Say under a chapter's title how long it takes to read, and to run.

    Parameters
    ----------
    page : Page
        Changed in place.
    """
    if page.number is None:
        return
    words = sum(len(text.get_text().split()) for text in page.of["p"] if text.find_parent("article"))
    line = page.new("p", f"{max(1, round(words / WORDS_A_MINUTE))} minutes to read, ", class_="chapter-time")
    line.append(page.new("a", "about one to run", href="running.html#two-tiers", class_="reference internal"))
    line.append(".")
    page.title.insert_after(line)


def link_module(pages):
    """Link the module's names in the chapters to its page, and each name there to the chapters that use it.

    Parameters
    ----------
    pages : list of Page
        Changed in place.
    """
    api = next((page for page in pages if page.path.stem == "api"), None)
    if api is None:
        return
    entries = {}
    for entry in api.of["dt"]:
        if found := re.fullmatch(r"upconv\.\w+\.(\w+)", entry.get("id", "")):
            entries[found[1]] = entry
    lines = {}
    for page in sorted(pages, key=lambda page: page.number or 0):
        if page.number is None:
            continue
        for name, place in _first_uses(page, entries):
            place.wrap(page.new("a", href=f"api.html#{entries[name]['id']}", class_="module-link reference internal"))
            address = f"{page.path.name}#{place.find_parent('section', id=True)['id']}"
            line = lines.setdefault(name, api.new("p", "Used in chapter ", class_="used-in"))
            line.append(", " if line.a else "")
            line.append(api.new("a", str(page.number), href=address, class_="reference internal"))
    for name, line in lines.items():
        line.append(".")
        entries[name].find_next_sibling("dd").append(line)


def _first_uses(page, names):
    """Yield where a chapter first names a function: in a sentence, if it can't be another word, or in its code."""
    seen = set()
    for element in page.html.article.find_all(["code", "span"], class_=["literal", "n"]):
        text = element.get_text()
        name = text.removesuffix("()")
        if name not in names or name in seen or element.find_parent(["a", "h1", "h2", "h3", "details"]):
            continue
        if element.name == "code":
            if text == name and "_" not in name:
                continue
        elif (before := element.find_previous_sibling("span")) and before.get_text() == ".":
            continue
        seen.add(name)
        yield name, element


def link_glossary(pages):
    """Link the glossary's terms to it, each where a chapter's sentences first have it.

    Parameters
    ----------
    pages : list of Page
        Changed in place.
    """
    entries = (entry for page in pages if page.path.stem == "glossary" for entry in page.of["dt"])
    terms = {entry.find(string=True).lower(): entry["id"] for entry in entries if entry.get("id")}
    terms = {term: place for term, place in terms.items() if term not in EVERYDAY}
    if not terms:
        return
    longest_first = "|".join(re.escape(term) for term in sorted(terms, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w-])({longest_first})s?(?![\w-])", re.IGNORECASE)
    for page in pages:
        seen = set()
        for paragraph in page.of["p"] if page.number else ():
            if not paragraph.find_parent("article"):
                continue
            for text in list(paragraph.find_all(string=pattern)):
                if text.find_parent(["a", "code", "summary"]) or text.find_parent(class_=["math", "admonition-title"]):
                    continue
                pieces, end = [], 0
                for match in pattern.finditer(text):
                    if (term := match[1].lower()) in seen:
                        continue
                    seen.add(term)
                    link = page.new("a", match[0], href=f"glossary.html#{terms[term]}", class_="term-link")
                    pieces += [text[end : match.start()], link]
                    end = match.end()
                if pieces:
                    text.replace_with(*pieces, text[end:])
