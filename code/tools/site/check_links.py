"""Look whether the addresses that the pages name are still there.

`python -m tools.site.check_links` asks for each of them through Sphinx's linkcheck builder, in a folder of its own, and
fails with a list of those that are broken. The settings are the `linkcheck_...` in `_config.yml`. Some publishers
refuse a program that is no browser; what they refuse is listed apart and is no failure, since nobody could mend it.
"""

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

__all__ = ["check", "main"]

ROOT = Path(__file__).resolve().parents[3]


def check(root=ROOT):
    """Ask for every address in the pages.

    Parameters
    ----------
    root : pathlib.Path
        The book: the folder of `_config.yml`.

    Returns
    -------
    tuple of three lists
        The addresses that answered, as strings; then those that are broken and those that were refused to a program,
        as lines for people that name the page, the address and the reason.

    Raises
    ------
    subprocess.CalledProcessError
        If the pages cannot be read, so that nothing is known of their links.
    """
    folder = root / "_build" / "links"
    shutil.rmtree(folder, ignore_errors=True)
    jupyter_book = "from jupyter_book.cli.main import main; main()"  # its own --builder linkcheck writes over the site
    options = ["--builder", "custom", "--custom-builder", "linkcheck", "--path-output", str(folder)]
    done = subprocess.run([sys.executable, "-c", jupyter_book, "build", str(root), *options], check=False)
    output = folder / "_build" / "linkcheck" / "output.json"
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()] if output.is_file() else []
    failed = [row for row in rows if row["status"] in ("broken", "timeout")]
    if done.returncode and not failed:
        raise subprocess.CalledProcessError(done.returncode, done.args)
    broken, refused = [], []
    for row in failed:
        is_refusal = re.match(r"(403|429) Client Error", row["info"])
        reason = textwrap.shorten(row["info"], 240, placeholder=" ...")
        (refused if is_refusal else broken).append(f"{row['filename']}: {row['uri']}: {reason}")
    return [row["uri"] for row in rows if row["status"] in ("working", "redirected")], broken, refused


def main():
    """Check, then list what is broken."""
    try:
        working, broken, refused = check()
    except subprocess.CalledProcessError as error:
        sys.exit(f"The pages could not be read (exit status {error.returncode}): the lines above say why.")
    for title, lines in (("Refused to a program, so look in a browser", refused), ("Broken", broken)):
        if lines:
            print(f"\n{title}:", *lines, sep="\n  ")
    print(f"\n{len(working)} links work, {len(broken)} are broken, {len(refused)} were refused.")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
