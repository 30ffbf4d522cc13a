"""Names from outside as text that stays text: in Markdown, LaTeX, spreadsheets, file names.

Labels, titles, reasons and sources come with records, which anyone may have written.
"""

import re

__all__ = ["code", "plain", "printable", "slug", "spreadsheet", "tex"]

_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "[": "{[}", "]": "{]}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$", "–": "--",
    **{c: "\\" + c for c in "&%$#_{}"},
}  # fmt: skip
_MOST = 80
"""Most characters of a file's name."""


def printable(text: str) -> str:
    """The text on one line, without what a terminal obeys: controls, escapes, odd directions."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def plain(text: str) -> str:
    """The text for Markdown: it can't break a table, become HTML, a link, a picture or formula."""
    safe = "".join(_HTML.get(c, c) for c in printable(text))
    return _MARKDOWN.sub(lambda found: "\\" + found[0], safe)


def code(text: str) -> str:
    """The text as Markdown's code: in as many backticks as it takes."""
    shown = printable(text)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def tex(text: str) -> str:
    """The text for LaTeX: no command, and no optional argument after a line's end."""
    return "".join(_TEX.get(c, c) for c in printable(text))


def spreadsheet(value: object) -> object:
    """A text that no spreadsheet takes for a formula; anything else as it is."""
    if not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def slug(text: str) -> str:
    """The text as a file's name without ending: small letters, digits, `-` and `_`."""
    return re.sub(r"[^a-z0-9-]+", "_", text.lower()).strip("_")[:_MOST].strip("_") or "score"
