"""Trained transposed convolutions of published packages: what weights could draw, and what pictures show."""
