"""Where cmbench keeps what is large and can be made again."""

import os
from pathlib import Path

from platformdirs import user_cache_path

from cmbench.core.errors import UserError

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The cache: `CMBENCH_CACHE`, or the user's cache folder of this system.

    Nothing in it is a result: it may be deleted at any time.

    Raises:
        UserError: If it is a URL.
    """
    given = os.environ.get("CMBENCH_CACHE")
    if given and "://" in given:
        raise UserError(
            f"CMBENCH_CACHE={given} is a URL",
            expected="a folder of this machine",
            fix=f"CMBENCH_STORE={given} shares what is in that folder through object storage",
        )
    return Path(given).expanduser() if given else user_cache_path("cmbench")
