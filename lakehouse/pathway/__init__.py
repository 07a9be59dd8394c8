"""Pathway memory: how questions were answered before."""
