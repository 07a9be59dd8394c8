"""How requests are made up from the description of the API: some of them with names of what is there."""

import zlib

from hypothesis import strategies as st  # noqa: F401


def known_names(schema):
    """Let half of the requests ask for the table, object and trace that are all called `flights`."""

    @schema.hook
    def map_path_parameters(context, parameters):
        for name, value in (parameters or {}).items():
            if zlib.crc32(repr(value).encode()) % 2:
                parameters[name] = "flights"
        return parameters
