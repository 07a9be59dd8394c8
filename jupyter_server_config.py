"""The lake's routes and their guard for any Jupyter server: `jupyter lab --config=jupyter_server_config.py`.

Jupyter also reads it where it looks for configuration (`jupyter --paths`), or in a folder that `JUPYTER_CONFIG_DIR` names.
"""

c = get_config()  # noqa: F821 - Jupyter gives it

c.ServerApp.jpserver_extensions = {
    "lakehouse.server": True,
    # Inside the server a viewer of a dashboard could run code with its cookie.
    "voila.server_extension": False,
}
# Else a server whose guard cannot be loaded would start without it.
c.ServerApp.reraise_server_extension_failures = True
