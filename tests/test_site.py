"""The built site: complete, readable without a network, and the same in a browser as in its sources."""

import functools
import http.server
import json
import re
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from tools.notebooks import standalone
from tools.notebooks.plain_markdown import read_references
from tools.site import build as build_site
from tools.site import cheatsheet

ROOT = Path(__file__).parents[1]
PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text())
NOTEBOOKS = [page for page in PAGES if (ROOT / f"{page}.ipynb").is_file()]
PHONE, DESKTOP = 390, 1300


@pytest.fixture(scope="session")
def site():
    return build_site.build()


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


def words(element):
    return " ".join(element.get_text().split())


@pytest.fixture(scope="session")
def pages(site):
    return {page: read(site / f"{page}.html") for page in PAGES}


def test_the_table_of_contents_and_the_chapters_folder_agree():
    on_disk = {path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "chapters").glob("[!.]*.*")}
    assert set(PAGES) == on_disk
    assert yaml.safe_load((ROOT / "_toc.yml").read_text())["root"] == "chapters/index"


def test_no_page_loads_anything_from_another_host(pages):
    for page, html in pages.items():
        loaded = [element.get("src") or element["href"] for element in html.select("[src], link:not([rel=canonical])")]
        assert [address for address in loaded if re.match(r"(\w+:)?//", address)] == [], page


def test_every_link_inside_the_site_leads_somewhere(site, pages):
    for page, html in pages.items():
        for link in html.select("a[href]"):
            target, anchor = urldefrag(link["href"])
            if re.match(r"\w+:", target):
                continue
            path = (site / page).parent / unquote(target) if target else site / f"{page}.html"
            assert path.exists(), f"{page}: {target}"
            if re.match(r"\w+\?", anchor):  # a state of an interactive figure, by its name
                named = f"&quot;name&quot;: &quot;{anchor.partition('?')[0]}&quot;"
                assert named in path.read_text(), f"{page}: {target}#{anchor}"
            elif anchor and path.suffix == ".html":
                assert anchor in anchors(path.resolve()), f"{page}: {target}#{anchor}"


def test_every_link_of_a_copy_leads_into_the_site(site, copies):
    address = re.compile(rf"\]\({re.escape(standalone.site_address())}([^()\s#]+)#?([^()\s]*)\)")
    links = {link for text in copies.values() for link in address.findall(text)}
    assert len(links) > 30
    for target, anchor in links:
        assert (site / target).is_file(), target
        if "?" in anchor:  # a state of an interactive figure
            assert f"&quot;name&quot;: &quot;{anchor.partition('?')[0]}&quot;" in (site / target).read_text()
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


@pytest.fixture
def visit(browser):
    """Open a page; whatever it asks of another host, fails to load or complains about is in the list."""
    contexts = []

    def open_page(address, scheme="light"):
        home = address.rpartition("/chapters/")[0] or address.rpartition("/")[0]
        context = browser.new_context(viewport={"width": DESKTOP, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page, complaints = context.new_page(), []
        page.on("request", lambda r: None if r.url.startswith((home, "data:", "blob:")) else complaints.append(r.url))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on("response", lambda r: complaints.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        context.route("**/*", lambda route: route.continue_() if route.request.url.startswith(home) else route.abort())
        page.goto(address, wait_until="networkidle")
        return page, complaints

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_from_the_disk_and_fits_a_phone(visit, site, page):
    opened, complaints = visit((site / f"{page}.html").as_uri())
    assert opened.title()
    assert complaints == []
    opened.set_viewport_size({"width": PHONE, "height": 900})
    assert opened.evaluate("document.documentElement.scrollWidth") <= PHONE, "wider than a phone"


@pytest.mark.parametrize("page", ["search", *NOTEBOOKS])
def test_a_page_opens_from_a_server_without_complaint(visit, server, page):
    _, complaints = visit(f"{server}/{page}.html")
    assert complaints == []


def test_the_cheat_sheet_prints_on_one_page(browser, site, tmp_path):
    cheatsheet.print_sheet(browser, site, tmp_path / "sheet.pdf")
    assert cheatsheet.count_pages((tmp_path / "sheet.pdf").read_bytes()) == 1


def test_formulas_are_set_with_the_sites_own_fonts(visit, site):
    page, complaints = visit((site / "chapters/01_arithmetic.html").as_uri())
    page.wait_for_function("document.querySelectorAll('mjx-container').length > 30")
    fonts = page.evaluate(
        "document.fonts.ready.then(() => [...document.fonts].filter(f => f.status == 'loaded').map(f => f.family))"
    )
    assert any("MJXTEX" in font for font in fonts)
    assert page.evaluate("document.querySelectorAll('mjx-merror').length") == 0
    assert complaints == []


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
  return [...document.querySelectorAll('svg[role=img] text, figcaption p, .cell_output .text_html code')].map(text => {
    const style = getComputedStyle(text);
    const a = light(text.tagName == 'text' ? style.fill : style.color), b = light(ground(text));
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["01_arithmetic", "03_three_forms", "04_parameter_summing"])
def test_drawings_and_captions_read_on_light_and_dark_pages(visit, site, name, scheme):
    page, _ = visit((site / f"chapters/{name}.html").as_uri(), scheme=scheme)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    ratios = page.evaluate(CONTRAST)
    assert len(ratios) > 50
    assert min(ratios) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["02_transpose", "05_which_kernels", "09_autoencoder"])
def test_figures_stand_on_the_page_itself(visit, site, name, scheme):
    page, _ = visit((site / f"chapters/{name}.html").as_uri(), scheme=scheme)
    style = "const style = getComputedStyle(figure); return style.backgroundColor + style.filter"
    figures = "[...document.querySelectorAll('figure img, .cell_output .text_html')]"
    styles = page.evaluate(f"{figures}.map(figure => {{ {style} }})")
    assert len(styles) >= 2
    assert set(styles) == {"rgba(0, 0, 0, 0)none"}
