"""Workflows: nodes that depend on each other, run in processes of their own, and an account of each that is true."""

from lakehouse.workflow.model import Node, Workflow
from lakehouse.workflow.modes import Http, Ingest, Notebook, Pathway, Python, Sql

__all__ = ["Http", "Ingest", "Node", "Notebook", "Pathway", "Python", "Sql", "Workflow"]
