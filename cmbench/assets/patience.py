"""Retries and timeouts of downloads."""

import math
from dataclasses import dataclass

from cmbench.core.errors import UserError

__all__ = ["LONGEST_TIMEOUT", "Patience"]

LONGEST_TIMEOUT = 86_400
"""Maximum timeout in seconds: one day."""


@dataclass(frozen=True)
class Patience:
    """Retries and timeouts of a download.

    Args:
        attempts: Attempts in a row without new data before giving up.
        timeout: Seconds without data before a retry.
        first_wait: Seconds before the first retry; doubled for each further one.
        longest_wait: Maximum seconds of a wait, even if the server asks for more.

    Raises:
        UserError: For a timeout that is not above 0 and at most a day.
    """

    attempts: int = 5
    timeout: float = 30.0
    first_wait: float = 1.0
    longest_wait: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= LONGEST_TIMEOUT:
            raise UserError(
                f"a timeout of {self.timeout:g} s", expected=f"up to {LONGEST_TIMEOUT} s (a day)"
            )

    def wait(self, failed: int) -> float:
        """Returns the seconds to wait after `failed` failed attempts in a row."""
        return min(math.ldexp(self.first_wait, min(failed - 1, 64)), self.longest_wait)
