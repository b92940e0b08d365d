"""Classifiers on embeddings: kinds, choice, calibration, fitted and scored."""
