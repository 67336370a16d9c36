"""Turn a chapter's MyST Markdown into plain Markdown, for Colab and Jupyter, which show MyST's own syntax as it stands.

The result is parsed again, and whatever is not plain Markdown by then is refused: nothing unknown passes through.
"""

import posixpath
import re
from dataclasses import dataclass, field

from tools.notebooks.book_references import NUMBERED, PARSER, TITLE, BookReferences, directive, read_references

__all__ = ["plain_markdown", "read_references"]

GLOSSARY, BIBLIOGRAPHY = "chapters/glossary", "chapters/references"
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
ATTRIBUTES = r"(?:\{\s*(?:[.#%]|[\w-]+=)[^{}`]*\}(?!`))?"
INLINE = re.compile(
    rf"""\\[^\w\s]
    | \{{(?P<role>[\w:.+-]+)\}}(?P<ticks>`+)(?!`)(?P<content>.+?)(?<!`)(?P=ticks)(?!`)
    | (?P<code>(?P<marks>`+)(?!`).+?(?<!`)(?P=marks)(?!`)){ATTRIBUTES}
    | \$\$.+?\$\$ | \$(?:\\.|[^$\\])+\$
    | \[\^(?P<note>[^\]\s]+)\](?P<colon>:?)
    | <a\ href="\#(?P<state>\w+\?[^"()<>\s]+)">(?P<words>[^<>]+)</a>
    | (?P<empty>(?<!!)\[\]\([^)]*\))
    | \]\((?P<target>[^()\s]+)(?P<title>\s+"[^"]*")?\){ATTRIBUTES}""",
    re.DOTALL | re.VERBOSE,
)
LEAVES = "inline text softbreak hardbreak code_inline math_inline image fence code_block math_block hr"
NESTING = "heading paragraph bullet_list ordered_list list_item blockquote table thead tbody tr th td em strong link"
FOLDED = ("Hint", "Solution")  # the dropdowns of exercises, which notebooks fold as well
OPEN, CLOSE = "<details><summary>{}</summary>", "</details>"
HTML_OF_PLAIN = {*map(OPEN.format, FOLDED), CLOSE}
ATTRIBUTES_OF_PLAIN = {"href", "title", "src", "alt"}
ONE_PARAGRAPH = ["paragraph_open", "inline", "paragraph_close", "footnote_reference_close"]
PLAIN = {*LEAVES.split(), *(f"{name}_{end}" for name in NESTING.split() for end in ("open", "close"))}


def plain_markdown(text, *, page, site, references):
    """Turn a Markdown cell's MyST into plain Markdown, whose references lead to the published site.

    Parameters
    ----------
    text : str
        The cell's source.
    page : str
        The cell's page, such as "chapters/03_three_forms".
    site : str
        Address of the site, with "/" at the end.
    references : BookReferences
        From ``read_references``.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If the text holds what this function doesn't know, or a reference leads nowhere.
    """
    cell = _Cell(page, site, references)
    result = cell.blocks(text).strip("\n")
    cell.check(result)
    return result


@dataclass
class _Cell:
    page: str
    site: str
    references: BookReferences
    notes: list = field(default_factory=list)

    def error(self, problem):
        return ValueError(f"{self.page}: {problem}")

    def look_up(self, table, key, what):
        if key not in table:
            raise self.error(f"{what} {key!r} is not in the book; correct it")
        return table[key]

    def blocks(self, text):
        """Convert a text block by block; the lines that no block replaces stay."""
        lines, tokens = text.split("\n"), PARSER.parse(text)
        for at, token in enumerate(tokens):
            if token.type == "footnote_reference_open":
                if [inner.type for inner in tokens[at + 1 : at + 5]] != ONE_PARAGRAPH:
                    raise self.error(f"footnote {token.meta['label']!r} is not one paragraph; make it one")
                self.notes.append(token.meta["label"])
        replaced = {}  # first line: (line after the last, new lines)
        for token in tokens:
            if token.map and token.map[1] > token.map[0] and (new := self.block(token, lines)) is not None:
                replaced[token.map[0]] = new
        number = self.references.numbers.get(self.page)
        for token in tokens:
            if number and (token.type, token.tag) == TITLE:
                after, (title,) = replaced[token.map[0]]
                replaced[token.map[0]] = after, [re.sub("^# ", f"# {number}. ", title)]
        result, at = [], 0
        while at < len(lines):
            at, new = replaced.get(at, (at + 1, [lines[at]]))
            result += new
        return "\n".join(result)

    def block(self, token, lines):
        """Give the line after a token's last and the lines that replace the token's, or None if they stay."""
        first, last = token.map
        if token.type == "amsmath":  # its map leaves out the last line
            last = first + token.content.count("\n") + 1
        source = "\n".join(lines[first:last])
        if token.type == "inline":
            return last, [INLINE.sub(self.inline, source)]
        if token.type in ("math_block", "math_block_label", "amsmath"):
            source = re.sub(r"\\label\{[^}]*\}[ \t]*", "", source)
            if token.type == "math_block_label":
                source = re.sub(r"(\$\$)\s*\([^()]*\)\s*$", r"\1", source)
            return last, ["$$", source, "$$"] if token.type == "amsmath" else [source]
        if token.level == 0 and token.type in ("myst_target", "myst_line_comment"):
            return last, []
        if token.level == 0 and directive(token)[0]:
            above = [""] if first and lines[first - 1].strip(":`") else []  # a directive above has its own
            below = [""] if last < len(lines) and lines[last].strip() else []
            kind = self.dropdown if directive(token)[0] == "dropdown" else self.proof
            return last, [*above, kind(*directive(token)), *below]
        return None

    def dropdown(self, _, title, options, body):
        if title not in FOLDED or options:
            raise self.error(f"dropdown {title!r} {[*options]} is unknown; call it one of {FOLDED}, without options")
        return f"{OPEN.format(title)}\n\n{self.blocks(body)}\n\n{CLOSE}"

    def proof(self, name, title, options, body):
        kind = name.removeprefix("prf:")
        if name != f"prf:{kind}" or kind not in ("proof", *NUMBERED):
            raise self.error(f"directive {{{name}}} is unknown to plain_markdown.py; add it there or do without")
        if unknown := [option for option in options if option != "label"] + re.findall(r"\A---", body):
            raise self.error(f"directive {{{name}}} has an unknown option {unknown[0]!r}; it may have 'label'")
        name = "Proof"
        if kind in NUMBERED:
            if "label" not in options:
                raise self.error(f"directive {{prf:{kind}}} {title!r} has no label; give it one")
            name = self.look_up(self.references.proofs, options["label"], "label")[1]
        heading = f"**{name} ({INLINE.sub(self.inline, title)}).**" if title else f"**{name}.**"
        text, parts = self.blocks(body), [part.type for part in PARSER.parse(body) if part.level == 0]
        if kind != "proof":
            return f"{heading}\n\n{text}"
        gap = " " if parts[:1] == ["paragraph_open"] else "\n\n"
        end = " ∎" if parts[-1:] == ["paragraph_close"] else "\n\n∎"
        return f"{heading}{gap}{text}{end}"

    def inline(self, match):
        """Convert a piece of running text; escapes, code and math stay."""
        if match["role"]:
            return self.role(match["role"], match["content"])
        if match["note"]:
            if match["note"] not in self.notes:
                raise self.error(f"footnote {match['note']!r} is not defined in its cell; define it there")
            return str(self.notes.index(match["note"]) + 1).translate(SUPERSCRIPTS)
        if match["state"]:  # of an interactive figure: the site's, since in a notebook the address is not a figure's
            return f"[{INLINE.sub(self.inline, match['words'])}]({self.site}{self.page}.html#{match['state']})"
        if match["empty"]:
            raise self.error(f"link {match['empty']} has no text; give it one")
        if match["target"]:
            return f"]({self.address(match['target'])}{match['title'] or ''})"
        return match["code"] or match[0]

    def address(self, target):
        if re.match(r"https?:|mailto:", target):
            return target
        path, _, label = target.partition("#")
        page = posixpath.normpath(posixpath.join(posixpath.dirname(self.page), re.sub(r"\.(ipynb|md)$", "", path)))
        if not path:  # the site looks in all pages, first in its own
            pages = [self.page, *self.references.anchors]
            page = next((page for page in pages if label in self.references.anchors.get(page, ())), self.page)
        labels = self.look_up(self.references.anchors, page, f"link to {target!r}: page")
        anchor = f"#{self.look_up(labels, label, f'link to {target!r}: label')}" if label else ""
        return f"{self.site}{page}.html{anchor}"

    def role(self, name, content):
        text, key = re.fullmatch(r"(?:(.*?)\s*<(?=.*>$))?(.*?)>?", content, re.DOTALL).groups()
        if name in ("cite", "cite:p", "cite:t"):
            cited = [self.look_up(self.references.citations, key.strip(), "citation") for key in content.split(",")]
            cited = [(who, when, address or f"{self.site}{BIBLIOGRAPHY}.html") for who, when, address in cited]
            if name == "cite:t":
                return ", ".join(f"{who} [[{when}]({address})]" for who, when, address in cited)
            return f"[{', '.join(f'[{who}, {when}]({address})' for who, when, address in cited)}]"
        if name == "prf:ref":
            page, number = self.look_up(self.references.proofs, key, "label")
            return f"**{text or number}**" if page == self.page else f"[{text or number}]({self.site}{page}.html#{key})"
        if name == "numref":
            chapters = self.references.chapters
            where, number = self.look_up({**self.references.figures, **chapters}, key, "chapter or figure")
            if not text and key in chapters:
                raise self.error(f"role {{{name}}}`{content}` has no text; write chapter %s <{key}>")
            if text and ("{" in text or "%s" not in text):
                raise self.error(f"role {{{name}}}`{content}` has no %s, where the number comes")
            anchor = self.references.anchors[where][key]
            return f"[{(text or 'Fig. %s').replace('%s', number)}]({self.site}{where}.html#{anchor})"
        if name == "term":
            anchor = self.look_up(self.references.terms, " ".join(key.lower().split()), "term")
            return f"[{text or key}]({self.site}{GLOSSARY}.html#{anchor})"
        if name == "index":  # an entry of the site's index and of its search
            return text or key
        raise self.error(f"role {{{name}}}`{content}` is unknown to plain_markdown.py; add it there or do without")

    def check(self, text):
        """Refuse a converted text in which the parser still finds more than plain Markdown."""
        blocks = PARSER.parse(text)
        for token in [*blocks, *(child for block in blocks for child in block.children or [])]:
            what = f"{token.type} {(token.info or token.content or token.meta.get('label', ''))[:60]!r}"
            fold = token.type == "html_block" and token.content.strip() in HTML_OF_PLAIN
            if (not fold and token.type not in PLAIN) or token.info.startswith("{"):
                raise self.error(f"{what} is unknown to plain_markdown.py; add it there or do without")
            if token.type in ("code_inline", "link_open", "image") and not ATTRIBUTES_OF_PLAIN.issuperset(token.attrs):
                raise self.error(f"{what} has attributes {token.attrs}; write them as {{.name}}")
            address = token.attrs.get("href", token.attrs.get("src", "https:"))
            if not re.match(r"https?:|mailto:", address):
                raise self.error(f"{token.type} leads to {address!r}; give an address on the web")
            if token.type.startswith("math") and (command := re.search(r"\\(label|ref|eqref)\b", token.content)):
                raise self.error(f"math {token.content.strip()[:60]!r} has {command[0]}, which only the site resolves")
