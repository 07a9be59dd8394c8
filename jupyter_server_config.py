"""Read by `jupyter server` and `jupyter lab` when they are started in this folder: the lake's routes and their guard."""

c = get_config()  # noqa: F821 - Jupyter gives it

c.ServerApp.jpserver_extensions = {
    "lakehouse.server": True,
    # Inside the server a viewer of a dashboard could run code with its cookie.
    "voila.server_extension": False,
}
# Else a server whose guard cannot be loaded would start without it.
c.ServerApp.reraise_server_extension_failures = True
