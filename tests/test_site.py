"""The built site: complete, readable without a network, and the same in a browser as in its sources."""

import functools
import html
import http.server
import json
import os
import re
import shutil
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import yaml

import build_site
import standalone
from plain_markdown import read_references

ROOT = Path(__file__).parents[1]
PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text())
NOTEBOOKS = [page for page in PAGES if (ROOT / f"{page}.ipynb").is_file()]
PHONE, DESKTOP = 390, 1300


class Elements(HTMLParser):
    """Every start tag of a page with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def of(self, *tags):
        return [attributes for tag, attributes in self.found if tag in tags]

    @property
    def anchors(self):
        return {attributes["id"] for _, attributes in self.found if attributes.get("id")}


@pytest.fixture(scope="session")
def site():
    return build_site.build()


@functools.cache
def elements_of(path):
    return Elements(path.read_text())


@pytest.fixture(scope="session")
def pages(site):
    return {page: elements_of(site / f"{page}.html") for page in PAGES}


def test_the_table_of_contents_and_the_chapters_folder_agree():
    on_disk = {path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "chapters").glob("[!.]*.*")}
    assert set(PAGES) == on_disk
    assert yaml.safe_load((ROOT / "_toc.yml").read_text())["root"] == "chapters/index"


def test_no_page_loads_anything_from_another_host(pages):
    for page, elements in pages.items():
        loaded = [a.get("src") for a in elements.of("script", "img", "iframe", "source", "video", "audio")]
        loaded += [a.get("href") for a in elements.of("link") if a.get("rel") != "canonical"]
        foreign = [address for address in loaded if address and re.match(r"(\w+:)?//", address)]
        assert foreign == [], page


def test_every_link_inside_the_site_leads_somewhere(site, pages):
    for page, elements in pages.items():
        for attributes in elements.of("a"):
            target, anchor = urldefrag(attributes.get("href") or "")
            if re.match(r"\w+:", target):
                continue
            path = (site / page).parent / unquote(target) if target else site / f"{page}.html"
            assert path.exists(), f"{page}: {target}"
            if anchor and path.suffix == ".html":
                assert anchor in elements_of(path.resolve()).anchors, f"{page}: {target}#{anchor}"


def test_the_buttons_of_a_chapter_lead_to_its_copy_that_runs_by_itself(site, pages, tmp_path):
    copies = {path.name: path.read_bytes() for path in standalone.write(folder=tmp_path / "copies")}
    owner_and_name = standalone.repository().removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{owner_and_name}/blob/gh-pages/"
    for page, elements in pages.items():
        addresses = [a.get("href", "") for a in elements.of("a")]
        in_colab = [address for address in addresses if "colab.research" in address]
        downloads = [address for address in addresses if address.startswith("../_sources/")]
        if page not in NOTEBOOKS:
            assert in_colab == [] and all(address.endswith(".md") for address in downloads), page
            continue
        assert set(in_colab) == {f"{colab}_sources/{page}.ipynb"}, page
        assert set(downloads) == {f"../_sources/{page}.ipynb"}, page
        # gh-pages is the site, so the path in the one is that in the other
        assert (site / f"_sources/{page}.ipynb").read_bytes() == copies[f"{Path(page).name}.ipynb"]
    assert len(copies) == len(NOTEBOOKS)


def test_theorems_are_numbered_as_in_the_copies(site):
    numbers = read_references(ROOT).proofs
    assert len(numbers) > 15
    for label, (page, number) in numbers.items():
        text = (site / f"{page}.html").read_text()
        assert re.search(rf'id="{label}"[^>]*>\s*<p[^>]*>\s*<span class="caption-number">{number} ', text), label


def test_every_picture_has_an_alternative_text(pages):
    pictures = 0
    for page, elements in pages.items():
        logos = ("../_static/images/logo_",)  # of the theme's buttons
        texts = [a.get("alt") for a in elements.of("img") if not a.get("src", "").startswith(logos)]
        texts += [a.get("aria-label") for a in elements.of("svg") if a.get("role") == "img"]
        assert all(text and len(text) > 20 for text in texts), page
        pictures += len(texts)
    assert pictures >= 8


def test_pages_show_the_outputs_that_the_notebooks_store(site):
    compared = 0
    for page in NOTEBOOKS:
        shown = html.unescape(re.sub(r"<[^>]+>", "", (site / f"{page}.html").read_text()))
        for cell in json.loads((ROOT / f"{page}.ipynb").read_text())["cells"]:
            if {"remove-output", "remove-cell"} & set(cell["metadata"].get("tags", [])):
                continue
            for output in cell.get("outputs", []):
                for line in "".join(output.get("text", [])).splitlines():
                    assert line.strip() in shown, f"{page}: {line}"
                    compared += 1
    assert compared > 20


# in a browser, with the network cut


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None and not os.environ.get("UPCONV_REQUIRE_BROWSER"):
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only where there is a browser

    quiet = "no-sandbox disable-gpu no-first-run disable-background-networking disable-component-update disable-sync"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--headless", *(f"--{flag}" for flag in quiet.split())]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
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
@pytest.mark.parametrize("name", ["02_transpose", "05_which_kernels", "10_autoencoder"])
def test_figures_stand_on_the_page_itself(visit, site, name, scheme):
    page, _ = visit((site / f"chapters/{name}.html").as_uri(), scheme=scheme)
    style = "const style = getComputedStyle(figure); return style.backgroundColor + style.filter"
    figures = "[...document.querySelectorAll('figure img, .cell_output .text_html')]"
    styles = page.evaluate(f"{figures}.map(figure => {{ {style} }})")
    assert len(styles) >= 2
    assert set(styles) == {"rgba(0, 0, 0, 0)none"}
