"""Refuse to publish under an address that is not this repository's.

`python code/tools/check_address.py OWNER/NAME` compares `repository: url:` in `_config.yml` with
`https://github.com/OWNER/NAME`. The site's buttons lead to that address, so a fork that kept the line would send its
readers to someone else's notebooks. Needs nothing but Python: it runs before anything is installed.
"""

import re
import sys
from pathlib import Path

__all__ = ["address", "main", "problem"]

CONFIG = Path(__file__).resolve().parents[2] / "_config.yml"


def address(config):
    """Find the repository's address in the text of a `_config.yml`.

    Parameters
    ----------
    config : str
        The text.

    Returns
    -------
    tuple of str and int, or None
        The address and the number of its line; None if there is no `url:` under `repository:`.
    """
    section = None
    for number, line in enumerate(config.splitlines(), start=1):
        if key := re.match(r"(\w+):", line):
            section = key[1]
        elif section == "repository" and (url := re.fullmatch(r"""\s+url:\s*(["']?)([^\s"']+)\1\s*(#.*)?""", line)):
            return url[2], number
    return None


def problem(config, repository):
    """Say what has to change before a repository may publish the site.

    Parameters
    ----------
    config : str
        The text of its `_config.yml`.
    repository : str
        "owner/name" on GitHub.

    Returns
    -------
    str or None
        One line that names the line to change, in the form that GitHub shows beside the file; None if all is well.
    """
    wanted, found = f"https://github.com/{repository}", address(config)
    if found is None:
        return f"::error file=_config.yml::_config.yml needs the lines `repository:` and `  url: {wanted}`"
    url, line = found
    if url == wanted:
        return None
    return (
        f"::error file=_config.yml,line={line}::Line {line} of _config.yml says `url: {url}`, but this repository is "
        f"{repository}, and the site's buttons would lead elsewhere. Change the line to `url: {wanted}`"
    )


def main(arguments):
    """Check this book's `_config.yml`; the exit status is 1 if something has to change."""
    [repository] = arguments
    found = problem(CONFIG.read_text(encoding="utf-8"), repository)
    print(found or f"The site's address is that of {repository}.")
    return int(found is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
