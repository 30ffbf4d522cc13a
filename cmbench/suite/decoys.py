"""Decoys of a suite: networks that hand out images of its own data set, as frauds would."""

from typing import Any

from cmbench.cards.cards import find_card
from cmbench.cards.open import SourcedModel
from cmbench.core.errors import Pending
from cmbench.core.loader import create
from cmbench.suite.networks import DataLookup
from cmbench.suite.spec import DECOYS, RunEntry, Suite

__all__ = ["decoy_network", "decoy_runs"]


def decoy_runs(suite: Suite) -> list[tuple[str, RunEntry]]:
    """Form and run of every decoy that the suite asks for."""
    forms = DECOYS if suite.decoys is True else tuple(suite.decoys or ())
    return [
        (f, RunEntry(model=f"decoy/{f}", label=f"decoy: {f.replace('_', ' ')}")) for f in forms
    ]


def decoy_network(form: str, suite: Suite, data: DataLookup) -> SourcedModel:
    """The network of one decoy; the data's fingerprint stands for its weights.

    Raises:
        Pending: If the data is not there, or has no held-out split for `real`.
    """
    given = suite.dataset
    spec: dict[str, Any] = dict(given) if isinstance(given, dict) else {"name": given}
    dataset = create("dataset", spec)
    fingerprint = data.fingerprint(dataset)
    if form == "real":
        if "split" not in type(dataset).model_fields:
            raise Pending(
                f"data set {dataset.name} has no held-out split to take real images from",
                command="decoys: [train, memoriser, blurred, jpeg, mode_dropper, gaussian, noise]",
            )
        spec["split"] = "train" if getattr(dataset, "split", "") == "test" else "test"
        dataset = create("dataset", spec)
        held = data.fingerprint(dataset)
        if held == fingerprint:
            raise Pending(
                f"the path given for {dataset.name} holds one split only",
                command="--data with a folder that holds both splits",
            )
        fingerprint = held
    model = create("model", {"name": "decoy", "form": form, "dataset": dataset.spec()})
    return SourcedModel(
        find_card(f"decoy/{form}"), model, {"data": fingerprint}, data.path(dataset)
    )
