"""Keeping a lake healthy: maintenance, the doctor, backup and restore."""
