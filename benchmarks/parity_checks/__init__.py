"""Comparisons with the published system, grouped by the part of the package that they test."""
