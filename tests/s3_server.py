"""An S3 server on loopback, for tests."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager

__all__ = ["s3_server"]


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """An S3 server of moto with the bucket `shared`; yields the variables that lead there."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = f"http://127.0.0.1:{port}"
    told = {
        "AWS_ENDPOINT_URL": place,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, stdout=quiet, stderr=quiet, env={**os.environ, **told})
    try:
        _until_it_answers(f"{place}/moto-api/")
        make = urllib.request.Request(f"{place}/shared", method="PUT")
        urllib.request.urlopen(make, timeout=30).close()
        yield told
    finally:
        server.kill()
        server.wait()


def _until_it_answers(url: str) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=30).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
