"""Scores, statistics and nearest neighbours of images that were made elsewhere."""
