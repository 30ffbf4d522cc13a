"""The plan's outline of networks whose building computes with numbers."""

from cmbench.core.loader import create
from cmbench.run.probe import outline


def test_an_sde_that_reads_its_levels_as_it_is_built_has_an_outline():
    network = {"name": "compact_unet", "channels": [8], "embedding": 8}
    model = create("model", {"name": "score_sde", "shape": [1, 8, 8], "network": network})
    assert sum(p.numel() for p in outline(model).parameters()) > 0


def test_other_networks_are_outlined_without_memory():
    network = {"name": "compact_unet", "channels": [8], "embedding": 8}
    model = create("model", {"name": "edm", "shape": [1, 8, 8], "network": network})
    assert {p.device.type for p in outline(model).parameters()} == {"meta"}
