"""Workflows: nodes that depend on each other, run in processes of their own, and an account of each that is true."""
