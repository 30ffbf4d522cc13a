"""Scores, statistics and nearest neighbours of images from other programs."""
