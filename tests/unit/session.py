"""A real IPython session in this process."""

from __future__ import annotations

from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


class Session:
    """An IPython session: `run` gives what a cell gives, `fails` how it fails."""

    def __init__(self, capsys=None) -> None:
        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "nocolor"
        self.shell = InteractiveShell(config=config)
        self.capsys = capsys

    def run(self, cell: str):
        done = self.shell.run_cell(cell)
        assert done.success, done.error_in_exec or done.error_before_exec
        return done.result

    def fails(self, cell: str, kind: type[BaseException]) -> str:
        """What is shown when a cell fails in the way it should: the message, not a traceback."""
        self.printed()
        done = self.shell.run_cell(cell)
        assert not done.success
        assert type(done.error_in_exec) is kind
        shown = self.printed()
        assert "Traceback" not in shown
        assert ".py" not in shown
        return shown

    def printed(self) -> str:
        out, err = self.capsys.readouterr()
        return out + err

    def complete(self, cell: str) -> list[str]:
        cursor = cell.index("|")
        with provisionalcompleter():
            found = list(self.shell.Completer.completions(cell.replace("|", "", 1), cursor))
        return [one.text for one in found]

    def __setitem__(self, name: str, value) -> None:
        self.shell.user_ns[name] = value

    def __getitem__(self, name: str):
        return self.shell.user_ns[name]
