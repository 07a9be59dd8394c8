"""One module per noun: thin functions of a `Call`, and the table of their routes at the end."""
