"""Where cmbench keeps what is large and can be made again."""

import os
from pathlib import Path

from platformdirs import user_cache_path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The cache: `CMBENCH_CACHE`, or the user's cache folder of this system.

    Nothing in it is a result: it may be deleted at any time.
    """
    given = os.environ.get("CMBENCH_CACHE")
    return Path(given).expanduser() if given else user_cache_path("cmbench")
