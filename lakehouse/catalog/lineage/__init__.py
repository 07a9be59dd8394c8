"""Where what is in a table came from, and what was made of it."""
