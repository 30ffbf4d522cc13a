"""How long a server is waited for."""

import math
from dataclasses import dataclass

from cmbench.core.errors import UserError

__all__ = ["LONGEST_TIMEOUT", "Patience"]

LONGEST_TIMEOUT = 86_400
"""Seconds: a day."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Args:
        attempts: Attempts in a row that bring no byte before giving up.
        timeout: Seconds without data after which a server counts as silent.
        first_wait: Seconds before the second attempt; doubled from then on.
        longest_wait: Seconds that a wait has at most, one that the server asks for included.

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
        """Seconds to wait after so many attempts in a row that failed, the server not asked."""
        return min(math.ldexp(self.first_wait, min(failed - 1, 64)), self.longest_wait)
