"""The notebook's door: `%load_ext lakehouse` brings `%lake`, `%sql`, `%%sql`, `%%pathway` and their completion."""

from __future__ import annotations

import difflib
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from IPython.core.completer import SimpleCompletion, context_matcher
from IPython.core.magic import needs_local_scope, no_var_expand

from lakehouse.catalog import faults
from lakehouse.errors import LakehouseError, LakeUnusable, QueryError
from lakehouse.folder import exists, folder_of
from lakehouse.lake import Lakehouse
from lakehouse.lake import open as open_lake
from lakehouse.notebook import answers, cells, displays, pathway, remote, suggestions, variables
from lakehouse.notebook.completion import Names
from lakehouse.pathway.recorder import Recording
from lakehouse.query.format import formatted
from lakehouse.query.result import Result
from lakehouse.query.statements import Parser, Statement

_SQL, _SQL_ELSE = "sql", "lakesql"
_JINJA = "values are written $name and DataFrames by their name; {{name}} templates are not supported"
_notebooks: WeakKeyDictionary[Any, Notebook] = WeakKeyDictionary()


def load_ipython_extension(ipython: Any) -> None:
    """Bring the magics and the completion into an IPython session; called by `%load_ext lakehouse`."""
    if ipython in _notebooks:
        return
    _notebooks[ipython] = Notebook(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Put back what was there before; lakes and results that variables hold stay usable."""
    if ipython in _notebooks:
        _notebooks.pop(ipython).leave()


class Notebook:
    """The magics of one IPython session and the lake they work on.

    Args:
        shell: the session.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._lake: Any = None  # a Lakehouse, or a Client of one
        self._parser = Parser()
        self._names = suggestions.CatalogNames()
        self._tried_default = False
        self._before: dict[tuple[str, str], Any] = {}
        self._name = _SQL if self._free(_SQL) else _SQL_ELSE
        if self._name != _SQL:
            print(
                f"another extension has %{_SQL}: ours is %{self._name} and %%{self._name}"
                f" (%lake --magic NAME calls it otherwise, %lake --magic {_SQL} takes its place)"
            )
        self._take("lake", self.lake, ("line",))
        self._take(self._name, self.sql, ("line", "cell"))
        self._take("pathway", self.pathway, ("line", "cell"))
        self._recorded: Recording | None = None
        shell.Completer.custom_matchers.append(self._match)

    def leave(self) -> None:
        """Take the magics and the completion out of the session again."""
        self._give_back("lake", self.lake)
        self._give_back(self._name, self.sql)
        self._give_back("pathway", self.pathway)
        matchers = self._shell.Completer.custom_matchers
        matchers[:] = [matcher for matcher in matchers if matcher != self._match]
        self._parser.close()

    @no_var_expand  # type: ignore[untyped-decorator]  # IPython's have no types
    @needs_local_scope  # type: ignore[untyped-decorator]  # IPython's have no types
    def sql(self, line: str, cell: str | None = None, local_ns: Mapping[str, Any] | None = None) -> Any:
        """Run SQL on the current lake: `%sql SELECT …` in a line, `%%sql` over a whole cell.

        %sql SELECT count(*) FROM flights WHERE origin = $origin
        %sql late << SELECT * FROM flights WHERE dep_delay > 60      (into a variable, shows nothing)
        %sql late= << SELECT …                                       (into a variable, shows it too)

        $name is a value: the notebook's variable of that name; `= ANY($names)` takes a list.
        A DataFrame, Arrow table, Polars frame or earlier result is a table under its variable's name;
        a table or view of the lake with that name goes first.

        Options, in the magic's own line, before or after the SQL:
          --output NAME, -o NAME   put the result into this variable and show nothing
          --type TYPE              df, arrow, pl or relation instead of a Result
          --at VERSION             read the lake as of this snapshot id or time
          --limit N                give at most N rows
          --timeout SECONDS        stop the query after this time
          --save NAME              keep the query under this name (one SELECT); it is run as well
          --with NAME              put the saved query NAME before the SQL as a table of that name; may be repeated
          --format                 lay out the SQL in the cell for reading, and run nothing
          --no-execute             show what would be run, and run nothing
          --explain                show the plan, and run nothing; with --analyze: run it and show the times
        """
        values = ChainMap(dict(local_ns or {}), self._shell.user_ns)
        with _readable(f"{line}\n{cell or ''}"):
            wanted = cells.sql_cell(line, cell, values)
            value, shown = self._run(wanted, values)
            if wanted.format and cell is not None and (head := cells.without_format(line)) is not None:
                self._shell.set_next_input(f"%%{self._name}{head}\n{value}\n", replace=True)
            if wanted.output is not None:
                self._shell.user_ns[wanted.output] = value
            return shown if wanted.show else None

    @no_var_expand  # type: ignore[untyped-decorator]  # IPython's have no types
    @needs_local_scope  # type: ignore[untyped-decorator]  # IPython's have no types
    def lake(self, line: str, local_ns: Mapping[str, Any] | None = None) -> Any:
        """Open a lake, or show what is in it.

        %lake                     the current lake
        %lake PATH                open the lake in this folder (made when new) and work on it from now on
        %lake $lake               work on a lake that is open already in the variable `lake`
        %lake https://HOST        work on the lake of a server; its token is that in AUTH_TOKEN, or asked for
        %lake tables [SCHEMA]     its tables and views
        %lake columns TABLE       the columns of one of them
        %lake snapshots [N]       its last commits
        %lake profile TABLE       what each column holds
        %lake search WORD …       tables, columns, comments and tags with these words
        %lake history TABLE [N]   the commits that changed a table
        %lake lineage TABLE       what a table came from, and what was made of it
        %lake diff VERSION VERSION  what changed between two snapshots
        %lake queries [N]         the last queries on this lake, from anywhere
        %lake saved [NAME]        the saved queries, or the SQL of one
        %lake run WORKFLOW [NAME=VALUE …]  run a workflow: a stored one, or a .toml file

        Options:
          --at VERSION     pin the lake to this snapshot id or time
          --read-only      open without the right to write
          --magic NAME     call the SQL magic %NAME and %%NAME from now on
        """
        with _readable(line):
            errand = cells.lake_errand(line)
            if errand.magic is not None:
                self._rename(errand.magic)
                if not errand.words:
                    return None
            word, *rest = errand.words or ("",)
            if word in cells.LAKE_WORDS:
                if errand.at is not None or errand.read_only:
                    raise LakehouseError(
                        f"%lake {word} takes no options", hint="pin the lake first: %lake PATH --at VERSION"
                    )
                return answers.answer(self._current(), word, rest)
            if rest:
                raise LakehouseError(
                    f"%lake takes one path, not {len(errand.words)} words", hint='quote a path with spaces: "my lake"'
                )
            if not word and (errand.at is not None or errand.read_only):
                word = str(self._current().path)
            if word:
                self._open(word, errand, ChainMap(dict(local_ns or {}), self._shell.user_ns))
            lake = self._current()
            print(displays.state(lake))
            return lake

    @no_var_expand  # type: ignore[untyped-decorator]  # IPython's have no types
    def pathway(self, line: str, cell: str | None = None) -> Any:
        """Keep how a question is answered, and find it again.

        %%pathway QUESTION        run the cell, and keep every query in it as a step of one recorded analysis
        %pathway conclude TEXT    say what was found; of the last one recorded here
        %pathway similar QUESTION how questions like this were answered before
        %pathway replay UID [VERSION]  run a recorded analysis again and compare; on a version, or `recorded`

        Options of %%pathway:
          --tag TAG                a label to find it by; may be repeated
          --output NAME, -o NAME   put the recording into this variable
        """
        with _readable(line):
            if cell is None:
                return pathway.errand(line, self._current(), self._recorded)
            self._recorded = pathway.record(self._shell, self._current(), pathway.title(line), cell)
            return self._recorded

    def _run(self, wanted: cells.Cell, values: Mapping[str, Any]) -> tuple[Any, Any]:
        """What the cell gives, and what is shown of it."""
        if wanted.format:
            return (laid_out := displays.Text(formatted(wanted.sql, self._parser).rstrip())), laid_out
        saved = self._current().saved if wanted.save or wanted.with_ else None
        if saved is not None and wanted.save:
            saved.add(wanted.save, wanted.sql, with_=wanted.with_)
        sql = saved.compose(wanted.sql, wanted.with_) if saved is not None else wanted.sql
        statements = self._parser.parse(sql)
        bound = variables.parameters(statements, values)
        lake = self._lake if wanted.no_execute else self._current()
        frames = variables.tables(statements, self._parser, values, lambda: self._taken(lake, wanted.at))
        if wanted.no_execute:
            rehearsal = displays.rehearsal(statements, bound, frames)
            return rehearsal, rehearsal
        assert lake is not None
        options = {"at": wanted.at, "timeout": wanted.timeout, "tables": frames}
        if wanted.explain:
            plan = _plan(lake.sql(_explained(statements, wanted), bound, **options))
            return plan, plan
        result = lake.sql(sql, bound, limit=wanted.limit, **options)
        value = _as_type(result, wanted.type)
        if wanted.type is not None:
            return value, value
        if statements[-1].verb == "EXPLAIN":
            return value, _plan(result)
        return value, result if result.is_receipt else value

    def _current(self) -> Any:
        """The lake to work on: the one opened last, else the default one if it exists."""
        if self._lake is None:
            folder = folder_of()
            if not exists():
                raise LakeUnusable(f"no lake is open, and there is none at {folder}", hint="type %lake PATH")
            self._work_on(open_lake(folder))
        assert self._lake is not None
        return self._lake

    def _work_on(self, lake: Any) -> None:
        self._lake = lake
        self._names.warm(lake)

    def _open(self, word: str, errand: cells.Errand, values: Mapping[str, Any]) -> None:
        where: Any = word
        pinned = errand.read_only or errand.at is not None
        if remote.is_url(word):
            if pinned:
                raise LakehouseError("a lake behind a server is not pinned", hint="%%sql --at VERSION reads its past")
            self._work_on(remote.connected(word))
            return
        if word.startswith("$"):
            if (where := values.get(word[1:])) is None:
                raise LakehouseError(f"there is no variable '{word[1:]}'", hint="%lake PATH takes a folder")
            if (isinstance(where, Lakehouse) and not pinned) or remote.is_client(where):
                self._work_on(where)
                return
            where = where.path if isinstance(where, Lakehouse) else str(where)
        folder = Path(where).expanduser()
        near = difflib.get_close_matches(word, cells.LAKE_WORDS, n=1, cutoff=0.75)
        if near and not folder.exists():
            raise LakehouseError(
                f"%lake has no '{word}'", hint=f"did you mean %lake {near[0]}? A new lake of that name: %lake ./{word}"
            )
        new = not exists(folder)
        at = errand.at
        if isinstance(at, str) and at.startswith("$"):
            at = values.get(at[1:])
        lake = open_lake(where, at=at, read_only=errand.read_only)
        self._work_on(lake)
        if new:
            print(f"made a new lake at {lake.path}")

    def _taken(self, lake: Any, at: Any) -> set[str]:
        """Lower-cased names that mean a table before any variable does."""
        if lake is None:
            return set()
        if remote.is_client(lake):
            return remote.taken(lake)
        metadata = lake.catalog.metadata
        snapshot = metadata.current() if at is None else metadata.resolve(at)
        names = {name for schema, name in metadata.relations(snapshot) if schema == "main"}
        if at is None:  # temporary tables belong to the newest state
            temporary = lake._database.connection().execute(  # not lake.sql: nobody asked, it is no part of the history
                "SELECT table_name FROM duckdb_tables() WHERE temporary AND NOT internal"
                " UNION ALL SELECT view_name FROM duckdb_views() WHERE temporary AND NOT internal"
            )
            names |= {row[0].lower() for row in temporary.fetchall()}
        return names

    def _rename(self, name: str) -> None:
        cells.check_name(name)
        if name == "lake":
            raise LakehouseError("%lake is the other magic", hint="choose another name")
        self._give_back(self._name, self.sql)
        self._name = name
        self._take(name, self.sql, ("line", "cell"))
        print(f"SQL runs with %{name} and %%{name}")

    def _free(self, name: str) -> bool:
        manager = self._shell.magics_manager
        tables = [manager.magics["line"], manager.magics["cell"], getattr(manager, "lazy_magics", {})]
        return not any(name in table for table in tables)

    def _take(self, name: str, function: Any, kinds: Sequence[str]) -> None:
        for kind in kinds:
            table = self._shell.magics_manager.magics[kind]
            self._before[kind, name] = table.get(name)
            table[name] = function

    def _give_back(self, name: str, function: Any) -> None:
        """Undo `_take`, unless somebody else has taken the name since."""
        for kind in ("line", "cell"):
            before = self._before.pop((kind, name), None)
            table = self._shell.magics_manager.magics[kind]
            if table.get(name) != function:
                continue
            if before is None:
                del table[name]
            else:
                table[name] = before

    @context_matcher(identifier="lakehouse", priority=200)  # type: ignore[untyped-decorator]  # IPython's have no types
    def _match(self, context: Any) -> dict[str, Any]:
        """The IPython matcher: never raises, and keeps Python's suggestions out of SQL."""
        try:
            return self._suggested(context)
        except Exception:  # of any kind: who types must never be stopped by a suggestion
            return {"completions": [], "suppress": False}

    def _suggested(self, context: Any) -> dict[str, Any]:
        text = context.full_text
        cursor = sum(len(line) + 1 for line in text.split("\n")[: context.cursor_line]) + context.cursor_position
        here = suggestions.field(text, cursor, self._name)
        if here is None or not self._is_ours(here.magic):
            return {"completions": [], "suppress": False}
        inside = suggestions.in_lake if here.magic == "lake" else suggestions.in_sql
        found = inside(here, cursor, self._read_names)
        path = here.magic == "lake" and found.items and found.items[0].text in cells.LAKE_WORDS
        return {
            "completions": [SimpleCompletion(text=one.text, type=one.kind) for one in found.items],
            "matched_fragment": text[found.start : cursor],
            "suppress": True,
            "do_not_suppress": {"IPCompleter.file_matcher"} if path else set(),
            "ordered": True,
        }

    def _read_names(self) -> Names:
        if self._lake is None and self._tried_default:
            raise LakeUnusable("no lake is open")
        self._tried_default = True
        return self._names.read(self._current(), self._shell.user_ns, self._shell.user_ns_hidden)

    def _is_ours(self, name: str) -> bool:
        table = self._shell.magics_manager.magics["line"]
        return table.get(name) in (self.sql, self.lake)


@contextmanager
def _readable(text: str) -> Iterator[None]:
    """Errors of ours are shown as their message and hint; the cell fails all the same."""
    try:
        with faults.translated():
            yield
    except LakehouseError as error:
        if "{{" in text:
            error.hint = _JINJA
        # IPython's own way for an exception to say how it is shown.
        shown = f"{type(error).__name__}: {error}"
        error._render_traceback_ = lambda: [shown]  # type: ignore[attr-defined]
        raise


def _explained(statements: Sequence[Statement], wanted: cells.Cell) -> str:
    """The SQL that explains the one statement.

    Raises:
        QueryError: there are several, or it would be run although it does more than read.
    """
    if len(statements) > 1:
        raise QueryError("--explain takes one statement", hint=f"the cell has {len(statements)}")
    if wanted.limit is not None:
        raise QueryError("--explain shows the plan of the query as it stands", hint="leave out --limit")
    statement = statements[0]
    if wanted.analyze and (statement.kind != "read" or statement.verb == "COPY"):
        raise QueryError("--analyze runs the statement, and this one does more than read", hint="use --explain alone")
    if statement.verb == "EXPLAIN":
        return statement.text
    return f"EXPLAIN {'ANALYZE ' if wanted.analyze else ''}{statement.text}"


def _plan(result: Result) -> displays.Text:
    """The text of an EXPLAIN; DuckDB gives none for PIVOT."""
    return displays.Text(
        "\n".join(str(row[-1]) for row in result.fetchall()) or "DuckDB shows no plan for this statement"
    )


def _as_type(result: Result, kind: str | None) -> Any:
    if kind is None:
        return result
    try:
        return getattr(result, kind)()
    except ModuleNotFoundError as error:
        raise LakehouseError(
            f"--type {kind} needs the package {error.name}", hint=f"pip install {error.name}"
        ) from None
