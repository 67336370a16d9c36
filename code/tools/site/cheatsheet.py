"""Print the site's cheat sheet into a PDF of one page, with Chromium.

`python -m tools.site.cheatsheet` writes `_build/cheatsheet.pdf` from the site that `tools.site.build` has made.
"""

import re
import shutil
import sys
from pathlib import Path

__all__ = ["count_pages", "main", "print_sheet"]

ROOT = Path(__file__).resolve().parents[3]
FLAGS = "no-sandbox disable-gpu no-first-run disable-background-networking disable-component-update disable-sync"


def print_sheet(browser, site, path):
    """Print the cheat sheet.

    Parameters
    ----------
    browser : playwright.sync_api.Browser
        Chromium: Playwright's other browsers print no PDF.
    site : pathlib.Path
        The built site's folder.
    path : pathlib.Path
        The PDF's file. Size and margins are those of the page's own style.
    """
    page = browser.new_page(color_scheme="light")
    try:
        page.goto((site / "chapters" / "cheatsheet.html").as_uri(), wait_until="networkidle")
        page.evaluate("document.fonts.ready.then(() => null)")  # the formulas' too
        page.pdf(path=path, prefer_css_page_size=True, print_background=False)
    finally:
        page.close()


def count_pages(pdf):
    """Count the pages of a PDF that Chromium wrote, whose objects of pages are not compressed.

    Parameters
    ----------
    pdf : bytes

    Returns
    -------
    int
    """
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def main():
    """Print, then say where the file is."""
    site, path, chromium = ROOT / "_build" / "html", ROOT / "_build" / "cheatsheet.pdf", shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not on the path: install it, or print the page from any browser")
    if not (site / "chapters" / "cheatsheet.html").is_file():
        sys.exit("the site is not built: run `make book` first")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - building the site does without

    with sync_playwright() as playwright:
        options = [f"--{flag}" for flag in FLAGS.split()]
        browser = playwright.chromium.launch(executable_path=chromium, args=["--headless", *options])
        print_sheet(browser, site, path)
        browser.close()
    print(f"{path.relative_to(ROOT)}: {count_pages(path.read_bytes())} page")


if __name__ == "__main__":
    main()
