"""Text that is safe to print, whatever a file is named."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """Returns the text with control characters, line ends and undecodable bytes as escapes.

    File names may hold newlines, terminal escapes and bytes that are not UTF-8 (surrogates in
    Python), which would break a line, a terminal or the encoding of the output.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
