"""Drawn crowd scenes: a set that needs no download."""
