"""Rules of HTTP: addresses, safe redirects, numbers in headers, status texts."""

import http.client
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from cmbench.core.errors import UserError

__all__ = ["checked_url", "status_words", "url_opener", "whole_number"]

_SCHEMES = ("https", "http", "file")
_KEPT = "/%:@!$&'()*+,;=~-._"


def checked_url(url: str) -> str:
    """Returns a URL of https, http or file with its path and host encoded for HTTP.

    Non-ASCII characters are percent-encoded as UTF-8, those of a host by IDNA.

    Raises:
        UserError: If it has another scheme, no host, or an invalid host or port.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError as error:
        raise UserError(f"{url!r} is no address: {error}", expected="https://HOST/PATH") from None
    if parts.scheme not in _SCHEMES or (parts.scheme != "file" and not host):
        raise UserError(f"{url!r} is no address", expected="https://, http:// or file:///")
    if parts.scheme == "file":
        return url
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    host = f"[{host}]" if ":" in host else host
    path, query = quote(parts.path, _KEPT), quote(parts.query, _KEPT + "?[]")
    return urlunsplit((parts.scheme, quote(user, _KEPT) + host + port, path, query, ""))


def url_opener() -> urllib.request.OpenerDirector:
    """Returns an opener that follows redirects to https, and from http also to http."""
    return urllib.request.build_opener(_SafeRedirects)


def whole_number(text: str) -> int | None:
    """Parses the number in a header; None for anything else, or for 19 digits or more."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def status_words(code: int) -> str:
    """Describes a status code by the standard's text: the server's could control a terminal."""
    return f"{code} {http.client.responses.get(code, '')}".rstrip()


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Raises UserError if a redirect leaves https, or HTTP."""
        allowed = ("https",) if req.type == "https" else ("https", "http")
        target = checked_url(newurl)
        if not target.startswith(tuple(f"{scheme}://" for scheme in allowed)):
            raise UserError(
                f"{req.full_url} redirects to {target}",
                expected=" or ".join(f"{scheme}://" for scheme in allowed),
                fix="ask its owner, or give another place: --mirror URL",
            )
        return super().redirect_request(req, fp, code, msg, headers, target)
