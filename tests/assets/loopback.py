"""A server on the loopback that misbehaves as told, and a catalogue that names its files."""

import contextlib
import hashlib
import http.server
import socket
import struct
import threading
import time

DATA = bytes(range(256)) * 400
GOOD = hashlib.sha256(DATA).hexdigest()


class Faults:
    """What the server does: one entry a request in `script`, then the plain file.

    Entries: a number is an HTTP error; ("cut", n) ends after n bytes, ("reset", n) resets the
    connection after n bytes, ("hang", n) falls silent after n bytes, ("endless", n) sends n zeros
    without a length.
    """

    def __init__(self):
        self.script, self.asked, self.headers = [], [], {}
        self.ranges, self.etag, self.data, self.pace = True, None, DATA, 0.0
        self.paths, self.phrase, self.sent = [], None, 0
        self.released = threading.Event()


def handler(faults):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            given = self.headers.get("Range")
            faults.asked.append(given)
            faults.paths.append(self.path)
            step = faults.script.pop(0) if faults.script else ("plain", len(faults.data))
            if self.path.endswith("missing.bin"):
                step = 404
            if isinstance(step, int):
                return self.fail(step)
            kind, many = step
            if kind == "endless":
                return self.endless(many)
            first = self.first_byte(given)
            if first is not None and first >= len(faults.data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(faults.data)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.begin(first)
            return self.body(kind, faults.data[first or 0 :], many)

        def fail(self, code):
            self.send_response(code, faults.phrase)
            for key, value in faults.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def endless(self, many):
            """A body that no header gives a length for."""
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while faults.sent < many:
                    faults.sent += self.wfile.write(bytes(10_000))
            self.close_connection = True

        def first_byte(self, given):
            known = self.headers.get("If-Range")
            if not given or not faults.ranges or (known and known != faults.etag):
                return None
            return int(given.removeprefix("bytes=").rstrip("-"))

        def begin(self, first):
            rest = len(faults.data) - (first or 0)
            self.send_response(200 if first is None else 206)
            if first is not None:
                last = len(faults.data) - 1
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(faults.data)}")
            if faults.etag:
                self.send_header("ETag", faults.etag)
            for key, value in faults.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(rest))
            self.end_headers()

        def body(self, kind, data, many):
            if kind == "plain":
                for i in range(0, len(data), 10_000):
                    self.wfile.write(data[i : i + 10_000])
                    time.sleep(faults.pace)
                return
            self.wfile.write(data[:many])
            self.wfile.flush()
            if kind == "hang":
                faults.released.wait(20)
            if kind == "reset":
                # Closing with zero linger sends a reset in place of an orderly end.
                time.sleep(0.1)
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.close()

        def finish(self):
            with contextlib.suppress(OSError):
                super().finish()

        def log_message(self, *args):
            pass

    return Handler


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


@contextlib.contextmanager
def serving():
    """The server's address and what it does."""
    faults = Faults()
    server = Quiet(("127.0.0.1", 0), handler(faults))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", faults
    finally:
        faults.released.set()
        server.shutdown()
        server.server_close()


def catalogue_text(base):
    return f"""\
good: {{url: {base}/good.bin, file: good.bin, sha256: "{GOOD}", licence: "-", citation: "-"}}
sized: {{url: {base}/sized.bin, file: sized.bin, bytes: 99, licence: "-", citation: "-"}}
plain: {{url: {base}/plain.bin, file: plain.bin, licence: "-", citation: "-"}}
wrong: {{url: {base}/wrong.bin, file: wrong.bin, sha256: "{"0" * 64}", licence: "-", citation: "-"}}
short: {{url: {base}/short.bin, file: short.bin, sha256_prefix: "{GOOD[:8]}", licence: "-", citation: "-"}}
missing: {{url: {base}/missing.bin, file: missing.bin, licence: "-", citation: "-"}}
brought: {{page: https://example.org/folder, file: brought.bin, licence: "-", citation: "-", note: ask}}
"""
