"""Figures, each with its baseline from the same run. `make bench` runs them all."""
