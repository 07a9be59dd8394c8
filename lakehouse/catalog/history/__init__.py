"""The past of tables: changes, differences, going back, and names for snapshots."""
