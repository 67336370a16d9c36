"""The built site: complete, readable without a network, and the same in a browser as in its sources."""

import contextlib
import functools
import gzip
import http.server
import json
import os
import re
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from fontTools.ttLib import TTFont

from tools.notebooks import standalone
from tools.notebooks.plain_markdown import read_references
from tools.site import build as build_site
from tools.site import cheatsheet

ROOT = Path(__file__).parents[1]
PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text())
NOTEBOOKS = [page for page in PAGES if (ROOT / f"{page}.ipynb").is_file()]
CHAPTERS = [page for page in NOTEBOOKS if page != "chapters/index"]
EVERY_PAGE = [*PAGES, "genindex", "prf-prf", "py-modindex", "search"]
PHONE, DESKTOP = 360, 1300
HEAVIEST = 300_000  # bytes of a page with its style sheets, scripts and fonts, each as gzip packs it


@pytest.fixture(scope="session")
def site():
    """Build the site; or take what `make book` has just built, as `.ci/run` does."""
    return ROOT / "_build" / "html" if os.environ.get("UPCONV_SITE_IS_BUILT") else build_site.build()


@pytest.fixture(scope="session")
def copies(tmp_path_factory):
    paths = standalone.write(folder=tmp_path_factory.mktemp("copies") / "new")
    return {f"chapters/{path.stem}": path.read_text() for path in paths}


@functools.cache
def read(path):
    return BeautifulSoup(path.read_text(), "html.parser")


@functools.cache
def anchors(path):
    return {element["id"] for element in read(path).select("[id]")}


@functools.cache
def interactive(path):
    """The names of a page's interactive figures."""
    return {json.loads(figure["data-settings"])["name"] for figure in read(path).select("[data-settings]")}


def words(element):
    return " ".join(element.get_text().split())


@pytest.fixture(scope="session")
def pages(site):
    return {page: read(site / f"{page}.html") for page in PAGES}


def test_the_table_of_contents_and_the_chapters_folder_agree():
    on_disk = {path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "chapters").glob("[!.]*.*")}
    assert set(PAGES) == on_disk
    assert yaml.safe_load((ROOT / "_toc.yml").read_text())["root"] == "chapters/index"


@pytest.fixture(scope="session")
def every_page(site, pages):
    return {page: pages.get(page) or read(site / f"{page}.html") for page in EVERY_PAGE}


def test_no_page_of_the_site_is_left_out_here(site):
    written = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    assert {page for page in written if not page.startswith("_static/")} == {*EVERY_PAGE, "index"}


def test_no_page_loads_anything_from_another_host(every_page):
    for page, html in every_page.items():
        loaded = [element.get("src") or element["href"] for element in html.select("[src], link:not([rel=canonical])")]
        assert [address for address in loaded if re.match(r"(\w+:)?//", address)] == [], page


def test_every_link_inside_the_site_leads_somewhere(site, every_page):
    for page, html in every_page.items():
        for link in html.select("a[href]"):
            target, anchor = urldefrag(link["href"])
            if re.match(r"\w+:", target):
                continue
            path = (site / page).parent / unquote(target) if target else site / f"{page}.html"
            assert path.exists(), f"{page}: {target}"
            if re.match(r"\w+\?", anchor):  # a state of an interactive figure, by its name
                assert anchor.partition("?")[0] in interactive(path.resolve()), f"{page}: {target}#{anchor}"
            elif anchor and path.suffix == ".html":
                assert anchor in anchors(path.resolve()), f"{page}: {target}#{anchor}"


def test_no_name_of_a_place_is_there_twice(every_page):
    for page, html in every_page.items():
        names = [element["id"] for element in html.select("[id]")]
        assert sorted(names) == sorted(set(names)), page


def test_the_index_is_linked_beside_every_page(every_page):
    for page, html in every_page.items():
        [link] = [link for link in html.select("nav.bd-docs-nav a") if words(link) == "Index"]
        assert link["href"] == {"chapters": "../genindex.html", "genindex": "#"}.get(
            page.partition("/")[0], "genindex.html"
        )


def test_a_chapter_says_its_time_and_begins_with_text(pages):
    for page in CHAPTERS:
        time, first, *_ = pages[page].select_one("article h1").find_next_siblings()
        assert first.name == "p", page
        minutes = int(re.fullmatch(r"(\d+) minutes to read, about one to run\.", words(time))[1])
        assert 5 <= minutes <= 25, page
        assert not pages[page].select(".tag_bootstrap"), page


def test_a_chapter_leads_to_its_neighbours_and_to_its_source(pages):
    for page, before, after in zip(PAGES, ["", *PAGES], [*PAGES[1:], ""], strict=False):
        html = pages[page]
        ways = {way: html.select_one(f"a.{way}-{where}") for way, where in (("left", "prev"), ("right", "next"))}
        for link, neighbour in zip(ways.values(), (before, after), strict=True):
            assert (link["href"] if link else "") == (f"{Path(neighbour).name}.html" if neighbour else ""), page
        [source] = html.select("a.btn-source-file-button")
        [path] = ROOT.glob(f"{page}.*")
        assert source["href"] == f"{standalone.repository()}/blob/main/{path.relative_to(ROOT).as_posix()}"


def test_the_module_and_the_chapters_lead_to_each_other(pages):
    there, back = set(), set()
    for page in CHAPTERS:
        names = [link["href"].partition("#")[2] for link in pages[page].select("a.module-link")]
        assert len(names) == len(set(names)), page
        there |= {(f"{Path(page).name}.html", name) for name in names}
    for line in pages["chapters/api"].select("p.used-in"):
        name = line.find_parent("dd").find_previous_sibling("dt")["id"]
        back |= {(link["href"].partition("#")[0], name) for link in line.select("a")}
    assert there == back
    assert len({name for _, name in there}) > 20 and len({page for page, _ in there}) > 12


def test_words_lead_to_the_glossary_once_a_chapter(pages):
    terms = {entry["id"] for entry in pages["chapters/glossary"].select("dt[id]")}
    linked = set()
    for page in CHAPTERS:
        here = [link["href"].partition("#")[2] for link in pages[page].select("article a.term-link")]
        assert len(here) == len(set(here)) > 2, page
        linked |= set(here)
    assert linked <= terms
    assert len(linked) > 0.8 * len(terms)


def test_every_link_of_a_copy_leads_into_the_site(site, copies):
    address = re.compile(rf"\]\({re.escape(standalone.site_address())}([^()\s#]+)#?([^()\s]*)\)")
    links = {link for text in copies.values() for link in address.findall(text)}
    assert len(links) > 30
    for target, anchor in links:
        assert (site / target).is_file(), target
        if "?" in anchor:  # a state of an interactive figure
            assert anchor.partition("?")[0] in interactive(site / target)
        else:
            assert not anchor or anchor in anchors(site / target), f"{target}#{anchor}"


def test_the_buttons_of_a_chapter_lead_to_its_copy_that_runs_by_itself(site, pages, copies):
    owner_and_name = standalone.repository().removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{owner_and_name}/blob/gh-pages/"
    for page, html in pages.items():
        in_colab = {link["href"] for link in html.select("a[href*='colab.research']")}
        downloads = {link["href"] for link in html.select("a[href^='../_sources/']")}
        if page not in NOTEBOOKS:
            assert not in_colab and all(address.endswith(".md") for address in downloads), page
            continue
        assert in_colab == {f"{colab}_sources/{page}.ipynb"}, page
        assert downloads == {f"../_sources/{page}.ipynb"}, page
        # gh-pages is the site, so the path in the one is that in the other
        assert (site / f"_sources/{page}.ipynb").read_text() == copies[page]
    assert copies.keys() == set(NOTEBOOKS)


def test_theorems_are_numbered_as_in_the_copies(pages):
    numbers = read_references(ROOT).proofs
    assert len(numbers) > 15
    for label, (page, number) in numbers.items():
        assert words(pages[page].find(id=label).select_one(".caption-number")) == number, label


def test_chapters_and_figures_are_numbered_as_in_the_copies(pages, copies):
    """Titles, links that carry a number, and figures: the copies' are worked out by us, the site's by its build."""
    references = read_references(ROOT)
    links = figures = 0
    for page in NOTEBOOKS:
        markdown = [cell.source for cell in nbformat.reads(copies[page], 4).cells if cell.cell_type == "markdown"]
        copy, article = "\n\n".join(markdown), pages[page].select_one("article")

        [title], [ours] = article.select("h1"), re.findall(r"^# (.*)$", copy, re.MULTILINE)
        shown, number = words(title).removesuffix("#"), references.numbers.get(page)  # "#" is a link to it
        assert shown == re.sub(r"[`*]", "", ours)
        assert shown.startswith(f"{number}. ") if number else not shown[0].isdigit()
        sidebar = pages["chapters/index"].select(f"nav a[href='{Path(page).name}.html']")
        assert shown in map(words, sidebar) or not number

        found = [(words(text), text.parent["href"].partition("#")[2]) for text in article.select("a > .std-numref")]
        in_copy = re.findall(r"\[([^\]]*)\]\([^()\s]*#((?:ch|fig)-[\w-]+)\)", copy)
        assert sorted(found) == sorted(in_copy), page
        links += len(found)

        numbers = [text for text in map(words, article.select(".caption-number")) if text.startswith("Fig.")]
        assert numbers == re.findall(r"^\*\*(Fig\. [\d.]+)\*\* ", copy, re.MULTILINE), page
        figures += len(numbers)
    assert links > 30 and figures > 30


def test_the_search_finds_what_its_words_leave_out(site):
    """Sphinx's search drops digits and knows one spelling; entries of the index are found as they stand."""
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    entries = json.loads(text[text.index("{") : text.rindex("}") + 1])["indexentries"]
    wanted = ("4/2/1", "size mismatch", "bilinear initialization", "bilinear initialisation")
    assert entries.keys() >= set(wanted)


def test_no_page_shows_the_name_of_a_label_for_its_number(pages):
    for page, html in pages.items():
        text = words(html.select_one("article"))
        assert "numref" not in text and "%s" not in text.replace("%s %s", ""), page


def test_every_picture_has_an_alternative_text(pages):
    pictures = 0
    for page, html in pages.items():
        found = html.select("img:not([src^='../_static/images/logo_']), svg[role=img]")  # but the theme's buttons
        assert all(len(picture.get("alt") or picture.get("aria-label", "")) > 20 for picture in found), page
        pictures += len(found)
    assert pictures >= 8


def test_pages_show_the_outputs_that_the_notebooks_store(pages):
    compared = 0
    for page in NOTEBOOKS:
        shown = pages[page].get_text()
        for cell in nbformat.read(ROOT / f"{page}.ipynb", 4).cells:
            if {"remove-output", "remove-cell"} & set(cell.metadata.get("tags", [])):
                continue
            for line in "".join(output.get("text", "") for output in cell.get("outputs", [])).splitlines():
                assert line.strip() in shown, f"{page}: {line}"
                compared += 1
    assert compared > 20


# in a browser, with the network cut


@pytest.fixture(scope="session")
def server(site):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def context(browser):
    with contextlib.closing(browser.new_context(color_scheme="light")) as context:
        yield context


@pytest.fixture
def visit(context):
    """Open a page; whatever it asks of another host, fails to load or complains about is in the list."""
    pages = []

    def open_page(address, home):
        page, complaints, loaded = context.new_page(), [], {}
        pages.append(page)
        page.set_viewport_size({"width": PHONE, "height": 900})
        own = (home, "data:", "blob:")
        page.on("request", lambda r: loaded.update({r.url.partition("?")[0]: r.resource_type}))
        page.on("request", lambda r: None if r.url.startswith(own) else complaints.append(r.url))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on("response", lambda r: complaints.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        page.on(
            "console",
            lambda m: complaints.append(f"{m.text} {m.location['url']}") if m.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.evaluate(FONTS)
        return page, complaints, loaded

    yield open_page
    for page in pages:
        page.close()


@functools.cache
def packed(path):
    return len(gzip.compress(path.read_bytes()))


@pytest.fixture(scope="session")
def icons(site):
    return set(TTFont(site / "_static/vendor/fontawesome/icons.woff").getBestCmap())


FONTS = "document.fonts.ready.then(() => [...document.fonts].filter(f => f.status == 'loaded').map(f => f.family))"
FORMULAS = """() => {
  const text = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT), raw = [];
  const set = "pre, code, script, style, annotation, .katex-html";
  while (text.nextNode()) {
    const { data, parentElement } = text.currentNode;
    if (/\\$|\\\\[([]|\\{\\{/.test(data) && !parentElement.closest(set)) raw.push(data);
  }
  const count = (selector) => document.querySelectorAll(selector).length;
  return [raw, count(".katex-error"), count(".math"), count(".math .katex-html"), count(".math .katex-mathml math")];
}"""
ICONS = """[...document.querySelectorAll("body :not(svg *, pre *, .katex, .katex *)")].flatMap((element) =>
  ["::before", "::after"].flatMap((part) => {
    const { content, fontFamily } = getComputedStyle(element, part);
    return content.startsWith('"') && fontFamily.includes("Awesome") ? [content.codePointAt(1)] : [];
  }))"""
# Marks one text of each look: of each pair of colours, size and weight that the page has.
LOOKS = """() => {
  const style = document.createElement("style"), seen = new Set();
  style.textContent = "*, ::before, ::after { transition: none !important; animation: none !important }";
  document.head.append(style);
  const grounds = new Map([[null, ""]]);
  const ground = (element) => {
    if (!grounds.has(element)) {
      const { backgroundColor, backgroundImage, opacity } = getComputedStyle(element);
      const own = backgroundColor + backgroundImage + opacity;
      grounds.set(element, ground(element.parentElement) + (own === "rgba(0, 0, 0, 0)none1" ? "" : own));
    }
    return grounds.get(element);
  };
  const text = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (text.nextNode()) {
    const element = text.currentNode.parentElement, { color, fontSize, fontWeight } = getComputedStyle(element);
    if (!text.currentNode.data.trim() || !element.checkVisibility()) continue;
    const look = [color, fontSize, fontWeight, ground(element)].join();
    if (!seen.has(look)) element.setAttribute("data-look", "");
    seen.add(look);
  }
}"""
# Leaves out what axe takes minutes to read and has no name, role or address: other words of code, formulas as pictures.
SMALLER = """() => {
  for (const word of document.querySelectorAll(".highlight pre span[class]:not([data-look])"))
    if (!word.querySelector("a, [data-look]") && !word.closest("a")) word.replaceWith(word.textContent);
  for (const formula of document.querySelectorAll(".katex-html"))
    if (!formula.querySelector("[data-look]")) formula.remove();
}"""
PRINT = """["beforeprint", "afterprint"].map((event) => {
  dispatchEvent(new Event(event));
  return document.documentElement.dataset.theme;
})"""
AXE = """([selector, options]) => axe.run(selector, { resultTypes: ["violations"], ...options })
  .then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes.length, nodes[0].html.slice(0, 200)]))"""
# All rules but contrast, which is judged by looks; and one that axe tries out, on names that differ from what one sees.
RULES = {"rules": {"color-contrast": {"enabled": False}, "label-content-name-mismatch": {"enabled": True}}}
CONTRAST = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = numbers(colour).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor, alpha = numbers(colour)[3];
      if (alpha === undefined || alpha === 1) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = 'svg[role=img]:not(.upconv-explorer *) text, figcaption p, .cell_output .text_html code';
  return [...document.querySelectorAll(texts)].map(text => {
    const style = getComputedStyle(text);
    const a = light(text.tagName == 'text' ? style.fill : style.color), b = light(ground(text));
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), text.textContent];
  });
}"""
GROUNDS = """() => {
  const figures = document.querySelectorAll("figure img, .cell_output .text_html:not(:has(table.dataframe))");
  return [...figures].map((figure) => getComputedStyle(figure)).map((style) => style.backgroundColor + style.filter);
}"""


def turn(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function("(scheme) => document.documentElement.dataset.theme === scheme", arg=scheme)


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_a_page_in_a_browser(visit, axe, server, site, icons, page):
    """Everything in one visit, since opening a page and reading its tree is what takes the time."""
    opened, complaints, loaded = visit(f"{server}/{page}.html", home=server)
    width = "document.documentElement.scrollWidth"
    assert complaints == []

    files = [site / address.removeprefix(f"{server}/") for address, kind in loaded.items() if kind != "image"]
    assert sum(packed(path) for path in files if path.is_file()) < HEAVIEST
    raw, wrong, formulas, set_, heard = opened.evaluate(FORMULAS)
    assert (raw, wrong, set_, heard) == ([], 0, formulas, formulas)
    assert any("KaTeX" in font for font in opened.evaluate(FONTS)) == (formulas > 0)
    assert set(opened.evaluate(ICONS)) <= icons

    opened.add_script_tag(content=axe)
    assert opened.evaluate(width) <= PHONE, "wider than a phone"
    assert opened.evaluate(AXE, ["body", {"runOnly": ["scrollable-region-focusable"]}]) == []
    opened.set_viewport_size({"width": DESKTOP, "height": 900})
    assert opened.evaluate(width) <= DESKTOP
    for scheme in ("dark", "light"):
        turn(opened, scheme)
        assert opened.evaluate(PRINT) == ["light", scheme]
        opened.evaluate(LOOKS)
        assert [text for ratio, text in opened.evaluate(CONTRAST) if ratio < 4.5] == [], scheme
        assert set(opened.evaluate(GROUNDS)) <= {"rgba(0, 0, 0, 0)none"}, scheme
    opened.evaluate(SMALLER)
    assert opened.evaluate(AXE, ["html", RULES]) == []
    for scheme in ("light", "dark"):
        turn(opened, scheme)
        assert opened.evaluate(AXE, ["[data-look]", {"runOnly": ["color-contrast"]}]) == [], scheme


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_a_page_opens_from_the_disk(visit, site, page):
    opened, complaints, _ = visit((site / f"{page}.html").as_uri(), home=site.as_uri())
    assert opened.title()
    assert complaints == []


def test_the_front_page_answers_on_its_first_screen(visit, site, pages):
    """Each situation with a link to its lines and one to what earned it; of ten questions each with an answer."""
    decision, questions = pages["chapters/index"].select("table")[:2]
    rows = [row.select("td") for row in decision.select("tbody tr")]
    assert 1 < len(rows) <= 8 and len(questions.select("tbody tr")) == 10
    assert all(take.a["href"].startswith("13_choosing.html#") and because.a for _, take, because in rows)
    assert all(row.select("td")[1].select("a, code") for row in questions.select("tbody tr"))
    page, _, _ = visit((site / "chapters" / "index.html").as_uri(), site.as_uri())
    page.set_viewport_size({"width": DESKTOP, "height": 900})
    box = page.locator("table").first.bounding_box()
    assert box["y"] + box["height"] < 900
    slider = page.get_by_role("slider", name="Steps of training")
    slider.press("End")
    assert page.locator(".upconv-watching output").inner_text() == "1000"


def test_the_search_finds(visit, server):
    for wanted in ("size mismatch", "4/2/1", "bilinear initialisation"):
        opened, complaints, _ = visit(f"{server}/search.html?q={wanted}", home=server)
        opened.wait_for_selector("#search-results li a")
        assert complaints == [], wanted


def test_the_cheat_sheet_prints_on_one_page(browser, site, tmp_path):
    cheatsheet.print_sheet(browser, site, tmp_path / "sheet.pdf")
    assert cheatsheet.count_pages((tmp_path / "sheet.pdf").read_bytes()) == 1
