"""A lake behind a server: `lakehouse.connect(url)` gives a `Client` with the operations of a `Lakehouse`."""
