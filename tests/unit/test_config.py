"""Settings: where they come from, which wins, what is refused, and that secrets stay unseen."""

import msgspec
import pytest

from lakehouse import config
from lakehouse.config import Secret, load, parse_size
from lakehouse.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    def write(text):
        (tmp_path / "lakehouse.toml").write_text(text, "utf-8")
        return tmp_path

    return write


def test_defaults_without_a_file():
    settings = load(None, None, {})
    assert settings == config.Settings()
    assert (settings.catalog.lock_timeout, settings.query.max_rows, settings.catalog.sync) == (60.0, 10_000_000, True)


def test_file_then_environment_then_arguments(folder):
    where = folder("[query]\nmax_rows = 1\nthreads = 1\nmemory_limit = '1GB'\n")
    environ = {"LAKEHOUSE_QUERY_MAX_ROWS": "2", "LAKEHOUSE_QUERY_THREADS": "2"}
    query = load(where, {"query": {"max_rows": 3}}, environ).query
    assert (query.max_rows, query.threads, query.memory_limit) == (3, 2, "1GB")


def test_every_value_knows_where_it_came_from(folder):
    where = folder("[query]\nmax_rows = 1\n[catalog]\nauthor = 'ann'\n")
    settings, origins = config.explain(where, {"query": {"threads": 3}}, {"LAKEHOUSE_CATALOG_LOCK_TIMEOUT": "2.5"})
    by_name = {(origin.section, origin.key): (origin.value, origin.source) for origin in origins}
    assert by_name["query", "max_rows"] == (1, f"{where / 'lakehouse.toml'}: [query] max_rows")
    assert by_name["catalog", "author"] == ("ann", f"{where / 'lakehouse.toml'}: [catalog] author")
    assert by_name["catalog", "lock_timeout"] == (2.5, "$LAKEHOUSE_CATALOG_LOCK_TIMEOUT")
    assert by_name["query", "threads"] == (3, "argument query.threads")
    assert by_name["query", "timeout"] == (None, "default")
    assert len(by_name) == sum(len(type(getattr(settings, s)).__struct_fields__) for s in settings.__struct_fields__)


def test_the_process_environment_is_read(folder, monkeypatch):
    monkeypatch.setenv("LAKEHOUSE_CATALOG_AUTHOR", "bob")
    monkeypatch.setenv("LAKEHOUSE_PATH", "elsewhere")
    assert load(folder("")).catalog.author == "bob"


@pytest.mark.parametrize("text", ["true", "false", "1", "0"])
def test_truth_values_from_the_environment(text):
    assert load(None, None, {"LAKEHOUSE_CATALOG_SYNC": text}).catalog.sync is (text in ("true", "1"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[qurey]\nmax_rows = 1", ["lakehouse.toml", "[qurey]", "no section 'qurey'", "'query'"]),
        ("[query]\nmax_row = 1", ["lakehouse.toml", "[query] max_row", "no setting 'max_row'", "'max_rows'"]),
        ("[query]\nmax_rows = 'ten'", ["lakehouse.toml", "[query] max_rows", "a whole number", "not str"]),
        ("[query]\nmax_rows = 0", ["lakehouse.toml", "[query] max_rows", "at least 1"]),
        ("[query]\nmax_rows = 1.5", ["lakehouse.toml", "[query] max_rows", "a whole number"]),
        ("[query]\ntimeout = -1", ["lakehouse.toml", "[query] timeout", "a number above 0"]),
        ("[query]\nprogress = 'yes'", ["lakehouse.toml", "[query] progress", "true or false"]),
        ("[query]\nmemory_limit = 'lots'", ["lakehouse.toml", "[query] memory_limit", "a size such as"]),
        ("[catalog]\nauthor = 7", ["lakehouse.toml", "[catalog] author", "text", "not int"]),
        ("query = 7", ["lakehouse.toml", "'query' must be a section"]),
        ("max_rows = 7", ["lakehouse.toml", "no section 'max_rows'"]),
        ("[query\n", ["lakehouse.toml", "not valid TOML", "line 1"]),
    ],
)
def test_a_wrong_file_names_file_key_and_what_was_expected(folder, text, parts):
    with pytest.raises(ConfigError) as caught:
        load(folder(text), None, {})
    for part in parts:
        assert part in str(caught.value)


def test_an_empty_unknown_section_is_refused_too(folder):
    with pytest.raises(ConfigError, match="no section 'qurey'"):
        load(folder("[qurey]\n"), None, {})


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "lakehouse.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(tmp_path, None, {})


def test_an_unknown_variable_offers_the_nearest():
    with pytest.raises(ConfigError, match=r"LAKEHOUSE_QUERY_MAXROWS is not a setting\n.*LAKEHOUSE_QUERY_MAX_ROWS"):
        load(None, None, {"LAKEHOUSE_QUERY_MAXROWS": "1"})


def test_a_wrong_variable_says_what_was_expected():
    with pytest.raises(ConfigError, match="LAKEHOUSE_QUERY_THREADS: expected a whole number of at least 1"):
        load(None, None, {"LAKEHOUSE_QUERY_THREADS": "many"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": {"max_rows": "3"}}, "query.max_rows: expected a whole number of at least 1, not str"),
        ({"query": {"rows": 3}}, "no setting 'rows' in"),
        ({"sql": {"rows": 3}}, "no section 'sql'"),
        ({"query": 3}, "'query' must be a mapping"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        load(None, arguments, {})


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("12B", 12), ("64MB", 64_000_000), ("1.5 GiB", 1536 << 20), ("2KB", 2000), ("1TiB", 1 << 40)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


SECRET = "correct horse battery staple"


class Vault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: Secret | None = None
    pin: int = 0


class WithVault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vault: Vault = Vault()


def _sources(folder):
    return [
        config.explain(folder(f"[vault]\ntoken = '{SECRET}'"), None, {}, WithVault),
        config.explain(None, None, {"LAKEHOUSE_VAULT_TOKEN": SECRET}, WithVault),
        config.explain(None, {"vault": {"token": SECRET}}, {}, WithVault),
        config.explain(None, {"vault": {"token": Secret(SECRET)}}, {}, WithVault),
    ]


def test_a_secret_is_never_shown_and_can_be_revealed(folder):
    for settings, origins in _sources(folder):
        token = settings.vault.token
        assert token.reveal() == SECRET
        shown = [
            repr(settings),
            str(settings),
            repr(origins),
            f"{token}",
            f"{token!s:>40}",
            f"{token!r}",
            f"{token:>40}",
        ]
        shown += [str(token), "%s" % token, "{}".format(token), repr([token]), repr({"a": token})]  # noqa: UP031, UP032
        assert not any(SECRET in text for text in shown)
        assert "***" in repr(settings)


def test_a_secret_in_the_wrong_place_is_not_repeated(folder):
    attempts = [
        lambda: config.explain(folder(f"[vault]\npin = '{SECRET}'"), None, {}, WithVault),
        lambda: config.explain(None, None, {"LAKEHOUSE_VAULT_PIN": SECRET}, WithVault),
        lambda: config.explain(None, {"vault": {"pin": SECRET}}, {}, WithVault),
        lambda: config.explain(None, {"vault": {"token": [SECRET]}}, {}, WithVault),
        lambda: config.explain(folder(f"[vault]\ntoken = '{SECRET}"), None, {}, WithVault),
    ]
    for attempt in attempts:
        with pytest.raises(ConfigError) as caught:
            attempt()
        assert SECRET not in str(caught.value)
        assert SECRET not in repr(caught.value)
