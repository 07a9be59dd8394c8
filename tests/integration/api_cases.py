"""How requests are made up from the description of the API: some of them with names of what is there."""

import zlib


def known_names(schema):
    """Let half of the requests ask for the table, object and trace that are all called `flights`."""

    @schema.hook
    def map_path_parameters(context, parameters):
        for name, value in (parameters or {}).items():
            if zlib.crc32(repr(value).encode()) % 2:
                parameters[name] = "flights"
        return parameters

    @schema.hook
    def map_body(context, body):
        if (
            isinstance(body, dict)
            and isinstance(body.get("sql"), str)
            and zlib.crc32(body["sql"].encode("utf-8", "replace")) % 2
        ):
            read = "query" in context.operation.path
            return {"sql": "SELECT * FROM flights" if read else "UPDATE flights SET origin = 'B' WHERE id = 1"}
        return body
