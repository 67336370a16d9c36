"""Leave of Font Awesome what the pages show: some twenty icons of 1,400, a font of kilobytes for one of 156."""

import re
import shutil

from fontTools import subset

__all__ = ["thin_out"]

RULE = re.compile(r'((?:\.fa-[\w-]+:{1,2}before,?)+)\{content:"\\([0-9a-f]+)"\}')
FACE = re.compile(r"@font-face\{[^{}]*Font Awesome[^{}]*\}")
CODE = re.compile(r"\\([ef][0-9a-f]{3})\b|([\ue000-\uf8ff])")  # as a number or as itself
FAMILY = r"Font Awesome\ 6 Free"


def thin_out(static, texts):
    """Cut the theme's style sheet and its icons' font down to the icons in use.

    Parameters
    ----------
    static : pathlib.Path
        The site's folder `_static`, changed in place.
    texts : iterable of str
        All pages and scripts: an icon in use has its class in one of them, or its code in a rule of the style sheets
        that is not an icon's own.

    Raises
    ------
    ValueError
        If the style sheet is not as expected.
    """
    used = {name for text in texts for name in re.findall(r"\bfa-[\w-]+", text)}
    path, fonts = static / "styles" / "pydata-sphinx-theme.css", static / "vendor" / "fontawesome"
    style = path.read_text(encoding="utf-8")
    if len(RULE.findall(style)) < 1000 or len(FACE.findall(style)) < 3:
        raise ValueError(f"{path.name} has not the rules and fonts of Font Awesome 6")
    style = FACE.sub("", RULE.sub(lambda rule: rule[0] if used & set(re.findall(r"fa-[\w-]+", rule[1])) else "", style))
    others = "".join(other.read_text(encoding="utf-8") for other in sorted(static.rglob("*.css")) if other != path)
    icons = [int(code, 16) if code else ord(icon) for code, icon in CODE.findall(style + others)]

    options = subset.Options(flavor="woff", recalc_timestamp=False, layout_features=[])
    font = subset.load_font(fonts / "webfonts" / "fa-solid-900.ttf", options)
    chosen = subset.Subsetter(options)
    chosen.populate(unicodes=icons)
    chosen.subset(font)
    shutil.rmtree(fonts)
    fonts.mkdir()
    subset.save_font(font, fonts / "icons.woff", options)
    face = (
        'font-display:block;font-style:normal;font-weight:900;src:url(../vendor/fontawesome/icons.woff) format("woff")'
    )
    path.write_text(f"{style}@font-face{{font-family:{FAMILY};{face}}}", encoding="utf-8")
