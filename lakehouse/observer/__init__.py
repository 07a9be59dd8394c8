"""What ran, and what came of it: events, kept in a ring in memory and in a journal on the disk (ADR-005)."""
