"""SQL: taken apart by DuckDB's own parser, run with a timeout and a way to stop, kept as repeatable results."""
