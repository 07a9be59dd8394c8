"""Every error the product raises, in one tree.

    LakehouseError
    ├── ConfigError            settings: unknown key, wrong type
    ├── AccessError            who asks may not
    │   ├── Unauthenticated    no token, or not one of ours
    │   ├── Forbidden          a scope or an address that is not enough
    │   ├── TooManyAttempts    wrong tokens from one address
    │   └── BindRefused        a server that would be open to others
    ├── ArgumentInvalid        an argument of another type than the call takes
    ├── RequestInvalid         a request over HTTP that cannot be read
    │   ├── MediaTypeUnsupported
    │   ├── RangeInvalid       behind the end of the object
    │   ├── NotAcceptable      no format that was asked for can be given
    │   └── KeyReused          an Idempotency-Key that stands for another request
    ├── TooManyListeners       all places of those who listen to events are taken
    ├── LakeError              the lake folder itself
    │   ├── LakeUnusable       a file, not writable, not a lake
    │   ├── LakeTooNew         written by a newer version
    │   ├── LakeReadOnly       a write on a read-only or pinned lake
    │   ├── LakeClosed         used after close()
    │   ├── LockTimeout        another writer holds the lake
    │   ├── DiskFull           no space left where it was needed
    │   └── BackupUnusable     a backup that is unfinished, damaged or of another lake
    ├── NotFound
    │   ├── TableNotFound      also views
    │   ├── SchemaNotFound
    │   ├── ColumnNotFound
    │   ├── SnapshotNotFound
    │   ├── ObjectNotFound
    │   ├── TraceNotFound
    │   ├── ReportNotFound
    │   ├── WorkflowNotFound
    │   └── RunNotFound        of a report or workflow
    ├── AlreadyExists
    ├── Conflict               somebody else changed it meanwhile
    │   ├── PreconditionFailed if_absent or if_match does not hold
    │   └── RequestInFlight    the same request is being worked on
    ├── KeyInvalid             the text cannot be an object's key
    ├── ObjectTooLarge         larger than the cap of its key prefix
    ├── JournalError           a record that cannot be written, a file that cannot be used
    ├── TraceInvalid           what cannot be a trace: no JSON, an odd uid
    ├── ReportInvalid          a notebook that is no report, a parameter that does not fit
    ├── EventInvalid           an event whose parts contradict each other
    ├── FilterInvalid          an unknown field or operator
    ├── WorkflowError
    │   ├── WorkflowInvalid    a definition that cannot run; names file, node and key
    │   ├── RunFailed          a node failed, was not run, or the run was cancelled
    │   ├── NodeFailed         what a node did is not what it should have done
    │   └── WorkflowBusy       another process runs this workflow
    ├── QueryError
    │   ├── SyntaxFault        with a caret under the place
    │   ├── FormatRefused      SQL that cannot be laid out without changing it
    │   ├── SqlRefused         what SQL from strangers may not do
    │   ├── SandboxUnavailable this machine cannot hold SQL from strangers
    │   ├── SandboxBusy        all its workers were busy for too long
    │   ├── WorkerDied         the process that ran the query ended
    │   ├── ParameterFault     missing, unknown or unusable $name
    │   ├── QueryTimeout
    │   ├── QueryCancelled
    │   ├── QueryMemory        memory or spill space exhausted
    │   └── ResultTooLarge     more rows than query.max_rows
    ├── RemoteError            a lake behind a server, seen from here
    │   ├── ServerUnreachable  no connection, or no answer in time
    │   ├── AnswerBroken       an answer that ended early, or is none of ours
    │   └── NotRemote          what only a lake opened here can do
    └── IngestError
        ├── SourceNotFound
        ├── SourceUnreadable   binary, truncated, ragged, wrong encoding
        ├── SourceEmpty        nothing to load
        └── SchemaMismatch     columns do not fit the table

`code` is stable and part of the API; `status` is what HTTP answers with it.
"""

from __future__ import annotations

from typing import ClassVar


class LakehouseError(Exception):
    """The root of all errors: what was wrong, where, and what to do next.

    Args:
        message: what was wrong and where, one or a few lines.
        hint: what to do next, one line, or None when there is nothing to add.
    """

    code: ClassVar[str] = "lakehouse_error"
    status: ClassVar[int] = 400

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.request_id: str | None = None
        """Of the request over HTTP that failed, as the server's log has it; None when there was none."""

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message


class ConfigError(LakehouseError):
    """A setting is unknown or has the wrong type; names where it stands and what was expected."""

    code = "config_invalid"


class ArgumentInvalid(LakehouseError):
    """An argument is not of the type that the call takes; names it."""

    code = "argument_invalid"


class AccessError(LakehouseError):
    """Whoever asks may not have it."""

    code = "access_refused"
    status = 403


class Unauthenticated(AccessError):
    """No token was given, or none that is known; never repeats it."""

    code = "unauthenticated"
    status = 401


class Forbidden(AccessError):
    """The token's scope is not enough, or the address is not allowed."""

    code = "forbidden"


class TooManyAttempts(AccessError):
    """Too many wrong tokens came from this address; says when to try again."""

    code = "too_many_attempts"
    status = 429


class BindRefused(AccessError):
    """A server would listen beyond this machine without what protects it; it does not start."""

    code = "bind_refused"


class RequestInvalid(LakehouseError):
    """A request over HTTP is malformed, or has a field that is not known; names it."""

    code = "request_invalid"


class MediaTypeUnsupported(RequestInvalid):
    """The body is of a format that this operation does not take, or that it cannot tell."""

    code = "media_type_unsupported"
    status = 415


class RangeInvalid(RequestInvalid):
    """The range that was asked for begins behind the end."""

    code = "range_invalid"
    status = 416


class NotAcceptable(RequestInvalid):
    """The answer has no format that the `Accept` header names."""

    code = "not_acceptable"
    status = 406


class KeyReused(RequestInvalid):
    """The `Idempotency-Key` was sent before, with another request; nothing was done."""

    code = "idempotency_key_reused"
    status = 422


class TooManyListeners(LakehouseError):
    """As many listen to the events of a server as `observer.listeners` says."""

    code = "too_many_listeners"
    status = 503


class LakeError(LakehouseError):
    """Something is wrong with the lake as a whole."""

    code = "lake_error"


class LakeUnusable(LakeError):
    """The path cannot be used as a lake."""

    code = "lake_unusable"


class LakeTooNew(LakeError):
    """The lake was written by a newer version than this one can read."""

    code = "lake_too_new"


class LakeReadOnly(LakeError):
    """A write on a lake opened read-only or pinned to a snapshot, or in a folder that may not be written."""

    code = "lake_read_only"
    status = 403

    def __init__(self, message: str = "the lake is open for reading only", *, hint: str | None = None) -> None:
        super().__init__(
            message, hint=hint or "open it without at= and read_only=, and where its folder may be written"
        )


class LakeClosed(LakeError):
    """The lake was used after `close()`."""

    code = "lake_closed"


class LockTimeout(LakeError):
    """Another writer held the lake longer than the timeout; names the process."""

    code = "lock_timeout"
    status = 503


class DiskFull(LakeError):
    """No space left; nothing of the write stays."""

    code = "disk_full"
    status = 507


class BackupUnusable(LakeError):
    """A backup is unfinished or damaged, or its folder holds something else."""

    code = "backup_unusable"


class NotFound(LakehouseError):
    """A named thing does not exist."""

    code = "not_found"
    status = 404


class TableNotFound(NotFound):
    """No table or view of that name; the nearest names are offered."""

    code = "table_not_found"


class SchemaNotFound(NotFound):
    """No schema of that name."""

    code = "schema_not_found"


class ColumnNotFound(NotFound):
    """No column of that name."""

    code = "column_not_found"


class SnapshotNotFound(NotFound):
    """No snapshot with that id, or none as old as that time."""

    code = "snapshot_not_found"


class ObjectNotFound(NotFound):
    """No object under that key."""

    code = "object_not_found"


class TraceNotFound(NotFound):
    """The pathway memory has no trace of that uid."""

    code = "trace_not_found"


class ReportNotFound(NotFound):
    """There is no report of that name."""

    code = "report_not_found"


class WorkflowNotFound(NotFound):
    """No workflow is stored under that name."""

    code = "workflow_not_found"


class RunNotFound(NotFound):
    """No run of a report or workflow has that id."""

    code = "run_not_found"


class AlreadyExists(LakehouseError):
    """A thing of that name is there already."""

    code = "already_exists"
    status = 409


class Conflict(LakehouseError):
    """Another commit changed the same thing meanwhile; nothing of this write stays."""

    code = "conflict"
    status = 409


class PreconditionFailed(Conflict):
    """The object is not what `if_absent` or `if_match` asked for; nothing was written."""

    code = "precondition_failed"
    status = 412


class RequestInFlight(Conflict):
    """A request with the same `Idempotency-Key` is being worked on; its answer can be asked for in a moment."""

    code = "request_in_flight"


class KeyInvalid(LakehouseError):
    """The text cannot be a key; says why."""

    code = "key_invalid"


class ObjectTooLarge(LakehouseError):
    """The object is larger than its cap; nothing of it stays."""

    code = "object_too_large"
    status = 413


class JournalError(LakehouseError):
    """A record cannot be written, or the file of a journal cannot be used; nothing was appended."""

    code = "journal_failed"
    status = 500


class TraceInvalid(LakehouseError):
    """What cannot be a trace: content that is no JSON, an odd uid, tag or scope."""

    code = "trace_invalid"


class ReportInvalid(LakehouseError):
    """A name, a notebook or a parameter of a report is not as it should be; names it."""

    code = "report_invalid"


class EventInvalid(LakehouseError):
    """What was given cannot be an event: a success with an error, a failure without one."""

    code = "event_invalid"


class FilterInvalid(LakehouseError):
    """A filter names an unknown field or operator, or compares what cannot be compared."""

    code = "filter_invalid"


class WorkflowError(LakehouseError):
    """A workflow, or a run of one."""

    code = "workflow_failed"


class WorkflowInvalid(WorkflowError):
    """A definition that cannot run; every line names the file, the node and the key. Nothing has been run."""

    code = "workflow_invalid"


class RunFailed(WorkflowError):
    """A run did not do all of its nodes; names the first that failed."""

    code = "run_failed"


class NodeFailed(WorkflowError):
    """A node did not do what it should: it ended without a word, took too long, or left no output."""

    code = "node_failed"


class WorkflowBusy(WorkflowError):
    """The workflow is being run already; names the run."""

    code = "workflow_busy"
    status = 409


class QueryError(LakehouseError):
    """The query could not be bound or executed."""

    code = "query_failed"


class SyntaxFault(QueryError):
    """The SQL could not be parsed; the message has a caret under the place."""

    code = "sql_syntax"


class FormatRefused(QueryError):
    """The SQL could not be laid out without changing more than the layout; it was left as it is."""

    code = "format_refused"


class SqlRefused(QueryError):
    """SQL that may not run where strangers send it; names what was refused, and the line and column."""

    code = "sql_refused"
    status = 403


class SandboxUnavailable(QueryError):
    """SQL from strangers cannot be held on this machine, and the settings do not allow the gate alone."""

    code = "sandbox_unavailable"
    status = 503


class SandboxBusy(QueryError):
    """All workers, or all that one principal may have, were busy until the timeout."""

    code = "sandbox_busy"
    status = 503


class WorkerDied(QueryError):
    """The process that ran the query ended before its last row; the lake and other queries are as they were."""

    code = "worker_died"
    status = 500


class ParameterFault(QueryError):
    """A `$name` in the query has no value, or a value has no `$name`."""

    code = "sql_parameter"


class QueryTimeout(QueryError):
    """The query ran longer than its timeout and was stopped."""

    code = "query_timeout"
    status = 408


class QueryCancelled(QueryError):
    """The query was stopped by `lake.cancel()`."""

    code = "query_cancelled"
    status = 409


class QueryMemory(QueryError):
    """The query needed more memory or spill space than the settings allow."""

    code = "query_memory"
    status = 413


class ResultTooLarge(QueryError):
    """The result has more rows than `query.max_rows` and was asked for whole."""

    code = "result_too_large"
    status = 413


class RemoteError(LakehouseError):
    """A server failed in a way that has no class of its own here; `request_id` leads to its log."""

    code = "remote_failed"
    status = 502


class ServerUnreachable(RemoteError):
    """No connection could be made to the server, or it did not answer in time."""

    code = "server_unreachable"
    status = 504


class AnswerBroken(RemoteError):
    """An answer ended before it was whole, or is not one of this server's; nothing of it was used."""

    code = "answer_broken"


class NotRemote(RemoteError):
    """Only a lake that is opened on its own machine can do this."""

    code = "not_remote"
    status = 501


class IngestError(LakehouseError):
    """The source could not be loaded; the table is as it was before."""

    code = "ingest_failed"


class SourceNotFound(IngestError):
    """No file at that path, or no file matches that pattern."""

    code = "source_not_found"
    status = 404


class SourceUnreadable(IngestError):
    """The source is not what its format says: binary, truncated, ragged, wrong encoding."""

    code = "source_unreadable"


class SourceEmpty(IngestError):
    """The source holds no rows."""

    code = "source_empty"


class SchemaMismatch(IngestError):
    """The columns of the source do not fit those of the table."""

    code = "schema_mismatch"
