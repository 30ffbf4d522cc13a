"""Names from outside inside Markdown."""

__all__ = ["plain"]


def plain(text: str) -> str:
    """Text that can't break a Markdown table or become HTML."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(escaped.replace("|", "\\|").split())
