"""Labels of cells: a template filled in, with nothing in it that could run or grow."""

import re
from typing import Any

from cmbench.cards.cards import PlacedCard
from cmbench.core.errors import UserError, brief, nearest
from cmbench.samplers.base import Sampler
from cmbench.suite.spec import RunEntry

__all__ = ["label_of", "require_template"]

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_LONGEST = 300


def require_template(run: RunEntry, where: str) -> None:
    """Refuses a label that names anything but `{sampler}`, `{model}` and the keys of `train`.

    Raises:
        UserError: Naming the placeholder, what there is and the nearest.
    """
    known = ["sampler", "model", *run.train]
    for found in _PART.finditer(run.label or ""):
        if found[0] in ("{{", "}}") or found[1] in known:
            continue
        near = nearest(found[1] or "", known)
        raise UserError(
            f"label has no value for {brief(found[0])}"
            + (f"; did you mean '{{{near}}}'?" if near else ""),
            where=where,
            expected=", ".join(f"{{{name}}}" for name in known) + "; {{ and }} for braces",
        )


def label_of(
    run: RunEntry, card: PlacedCard, axes: dict[str, Any], sampler: Sampler, *, where: str = ""
) -> str:
    """The label of a cell: the run's template filled in, or the card with its axes.

    Args:
        run: The run, its template already checked.
        card: The card.
        axes: Training axes and their values; a placeholder without one stays as it is.
        sampler: The sampler.
        where: Place of the run, for messages.

    Raises:
        UserError: If it is longer than 300 characters.
    """
    text = _filled(run, card, axes, sampler)
    if len(text) > _LONGEST:
        raise UserError(
            f"label {brief(text)} has {len(text)} characters",
            where=where,
            expected=f"at most {_LONGEST}",
        )
    return text


def _filled(run: RunEntry, card: PlacedCard, axes: dict[str, Any], sampler: Sampler) -> str:
    if run.label is not None:
        names = {**axes, "sampler": sampler.name, "model": run.model}
        braces = {"{{": "{", "}}": "}"}
        return _PART.sub(
            lambda found: braces.get(found[0]) or str(names.get(found[1] or "", found[0])),
            run.label,
        )
    detail = ", ".join(str(value) for value in axes.values())
    text = f"{card.full_name} ({detail})" if detail else card.full_name
    return f"{text} {sampler.name}" if run.sampler and len(run.sampler) > 1 else text
