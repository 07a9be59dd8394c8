"""`lakehouse dashboards`: notebooks published for viewers, and the server that shows them."""

from __future__ import annotations

import click
import msgspec

from lakehouse.cli.shared import as_json, opened, print_json, print_rows


@click.group(invoke_without_command=True)
@click.option("--ip", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=8866, show_default=True)
@click.option("--viewers", type=click.IntRange(1), default=20, show_default=True, help="Most pages open at once.")
@click.option("--each", type=click.IntRange(1), default=5, show_default=True, help="Most pages open of one viewer.")
@click.option("--warm", type=click.IntRange(1), default=1, show_default=True, help="Kernels kept ready of each.")
@click.option("--memory", default="4GB", show_default=True, help="Most memory that each kernel may ask for.")
@click.pass_context
def dashboards(ctx: click.Context, ip: str, port: int, viewers: int, each: int, warm: int, memory: str) -> None:
    """Serve the published dashboards; exit code 2 when they would be open to others.

    The token is read from $AUTH_TOKEN as `lakehouse serve` reads it; a browser is asked for it once. Without one only
    this machine is served. Viewers see the widgets of published notebooks and can run no code.
    """
    if ctx.invoked_subcommand is None:
        from lakehouse.server.voila import launch

        launch(ctx.obj, ip, port, viewers=viewers, each=each, warm=warm, memory=memory)


@dashboards.command("list")
@as_json
@click.pass_obj
def list_(path: str | None, as_json: bool) -> None:
    """List the dashboards there are, and which are published."""
    with opened(path, read_only=True) as lake:
        found = lake.dashboards.list()
    if as_json:
        print_json([msgspec.to_builtins(one) for one in found])
        return
    print_rows(
        [
            {
                "dashboard": one.name,
                "title": one.title,
                "state": one.state,
                "published": one.published and one.published.astimezone().isoformat(" ", "seconds"),
                "by": one.by,
            }
            for one in found
        ],
        as_json=False,
        empty="no dashboards",
    )


@dashboards.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.pass_obj
def publish(path: str | None, names: tuple[str, ...]) -> None:
    """Let notebooks be served as they are now; a changed one must be published again."""
    with opened(path) as lake:
        for name in names:
            record = lake.dashboards.publish(name)
            click.echo(f"published {name}: {record.title} ({record.sha256[:12]})")


@dashboards.command()
@click.argument("name")
@click.pass_obj
def unpublish(path: str | None, name: str) -> None:
    """Serve a dashboard no longer."""
    with opened(path) as lake:
        lake.dashboards.unpublish(name)
    click.echo(f"{name} is not published any more")
