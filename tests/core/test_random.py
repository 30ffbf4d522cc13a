"""Noise depends on (seed, image, draw) alone."""

import numpy as np
import torch
from scipy import stats

from cmbench.core.random import Noise


def test_an_image_has_its_noise_whatever_the_batch():
    whole = Noise(7, range(20), (3, 4, 4)).normal(2)
    for i in (0, 7, 19):
        assert torch.equal(Noise(7, [i], (3, 4, 4)).normal(2)[0], whole[i])
    assert torch.equal(Noise(7, [5, 2], (3, 4, 4)).normal(2), whole[[5, 2]])


def test_seeds_images_and_draws_are_independent_streams():
    shape = (1, 32, 32)
    a = Noise(0, range(8), shape)
    draws = torch.cat([a.normal(0), a.normal(1), Noise(1, range(8), shape).normal(0)]).flatten(1)
    correlation = np.corrcoef(draws.numpy()) - np.eye(24)
    # 276 pairs of 1,024 values: |r| < 4.5 / sqrt(1024) but for chance of 2e-3.
    assert np.abs(correlation).max() < 4.5 / 32
    assert stats.kstest(draws.flatten().numpy(), "norm").pvalue > 1e-4


def test_labels_do_not_move_the_noise():
    plain, labelled = Noise(0, range(4), (1, 2, 2)), Noise(0, range(4), (1, 2, 2))
    labels = labelled.labels(10)
    assert torch.equal(plain.normal(0), labelled.normal(0))
    assert labels.min() >= 0
    assert labels.max() < 10
