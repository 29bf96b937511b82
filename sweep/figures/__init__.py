"""Figures of a sweep, a file each; `sweep.report` puts them together."""
