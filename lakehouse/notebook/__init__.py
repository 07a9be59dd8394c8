"""What the magics are made of: the text of cells, variables as values and tables, displays, completion."""
