"""A Sphinx extension: leave formulas in the pages as they were written, for `tools.site.formulas` to set.

Without it the pages would load MathJax.
"""

from sphinx.ext.mathjax import html_visit_displaymath, html_visit_math

__all__ = ["setup"]


def setup(app):
    r"""Register a renderer that writes `\(...\)` and `\[...\]` as MathJax's does, and asks for no script."""
    app.add_html_math_renderer("plain", (html_visit_math, None), (html_visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
