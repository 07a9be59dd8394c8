"""Who may pass: tokens from everywhere, addresses, the bind gate, wrong attempts, and that no token is ever shown."""

import hmac
import ipaddress
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse import auth, config
from lakehouse.auth import DEVELOPMENT, Attempts, Guard, address_of, is_loopback, networks_of
from lakehouse.config import AuthSettings, Secret
from lakehouse.errors import BindRefused, ConfigError, Forbidden, TooManyAttempts, Unauthenticated
from lakehouse.tokens import bearer, environment_names, new_token, tokens_of

PRIMARY, SECOND, READER = "primary-token-0001", "secondary-token-02", "reading-token-0003"
ENVIRON = {"AUTH_TOKEN": PRIMARY, "AUTH_TOKEN_SECONDARY": SECOND, "AUTH_TOKEN_READ": READER}


def settings(**values):
    for name in ("secondary_tokens", "read_tokens"):
        values[name] = tuple(map(Secret, values.get(name, ())))
    if "token" in values:
        values["token"] = Secret(values["token"])
    return AuthSettings(**values)


def guard(environ=(), **values):
    return Guard(settings(**values), dict(environ))


# tokens


def test_tokens_come_from_the_environment_without_their_white_space():
    environ = {"AUTH_TOKEN": f" {PRIMARY}\n", "AUTH_TOKEN_SECONDARY": f"{SECOND} , b\r\n", "AUTH_TOKEN_READ": READER}
    found = tokens_of(AuthSettings(), environ)
    assert found.primary.reveal() == PRIMARY
    assert [one.reveal() for one in (*found.secondary, *found.read)] == [SECOND, "b", READER]


def test_an_explicit_token_wins_over_the_environment_whatever_stands_there():
    for environ in (ENVIRON, {"AUTH_TOKEN": ""}, {"AUTH_TOKEN": "a,b"}, {"AUTH_TOKEN_FILE": "/nowhere"}):
        assert tokens_of(settings(token="explicit"), environ).primary.reveal() == "explicit"


def test_settings_come_from_the_file_and_the_environment(tmp_path):
    (tmp_path / "lakehouse.toml").write_text(
        '[auth]\ntoken = " filetoken\\n"\nread_tokens = ["r1", "r2"]\nallowed_ips = ["10.0.0.0/8"]\n'
    )
    found = config.load(tmp_path, None, {"LAKEHOUSE_AUTH_SECONDARY_TOKENS": "s1, s2"}).auth
    assert (found.token.reveal(), [one.reveal() for one in found.read_tokens]) == ("filetoken", ["r1", "r2"])
    assert [one.reveal() for one in found.secondary_tokens] == ["s1", "s2"]
    assert (found.allowed_ips, found.token_env) == (("10.0.0.0/8",), "AUTH_TOKEN")
    assert config.load(tmp_path, None, {"LAKEHOUSE_AUTH_TOKEN": "other"}).auth.token.reveal() == "other"
    with pytest.raises(ConfigError, match=r"auth.allowed_ips.*list of texts"):
        config.load(None, {"auth": {"allowed_ips": [7]}}, {})


def test_lists_of_settings_and_environment_are_added():
    found = tokens_of(settings(secondary_tokens=["s1"], read_tokens=["r1"]), ENVIRON)
    assert [one.reveal() for one in found.secondary] == ["s1", SECOND]
    assert [one.reveal() for one in found.read] == ["r1", READER]


def test_another_variable_may_be_named():
    found = tokens_of(AuthSettings(token_env="LAKE_KEY"), {"LAKE_KEY": "a", "LAKE_KEY_READ": "b", "AUTH_TOKEN": "c"})
    assert [one.reveal() for one in found.all()] == ["a", "b"]
    assert {"LAKE_KEY", "LAKE_KEY_READ", "LAKE_KEY_SECONDARY"} < set(
        environment_names(AuthSettings(token_env="LAKE_KEY"))
    )


@pytest.mark.parametrize("suffix", ["", "_SECONDARY", "_READ"])
def test_a_token_may_stand_in_a_file_of_its_owner(tmp_path, suffix):
    file = tmp_path / "token"
    file.write_text(f"{PRIMARY}\n")
    file.chmod(0o600)
    found = tokens_of(AuthSettings(), {f"AUTH_TOKEN{suffix}_FILE": str(file)})
    assert [one.reveal() for one in found.all()] == [PRIMARY]
    for mode in (0o604, 0o644, 0o640, 0o602):
        file.chmod(mode)
        with pytest.raises(ConfigError, match=f"AUTH_TOKEN{suffix}_FILE.*read by others") as caught:
            tokens_of(AuthSettings(), {f"AUTH_TOKEN{suffix}_FILE": str(file)})
        assert PRIMARY not in str(caught.value)


def test_a_file_that_cannot_be_one_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "binary").chmod(0o600)
    for path, why in [("nowhere", "No such file"), ("pipe", "not a file"), ("binary", "not text"), (".", "read")]:
        with pytest.raises(ConfigError, match=why):
            tokens_of(AuthSettings(), {"AUTH_TOKEN_FILE": str(tmp_path / path)})
    with pytest.raises(ConfigError, match="both set"):
        tokens_of(AuthSettings(), {"AUTH_TOKEN": "a", "AUTH_TOKEN_FILE": "b"})


@pytest.mark.parametrize("text", ["", "  ", "\n", ","])
def test_an_empty_token_is_no_wish_for_no_token(text):
    with pytest.raises(ConfigError, match="AUTH_TOKEN is empty"):
        tokens_of(AuthSettings(), {"AUTH_TOKEN": text})
    assert tokens_of(AuthSettings(), {"AUTH_TOKEN_SECONDARY": text, "AUTH_TOKEN_READ": text}).all() == ()


@pytest.mark.parametrize("bad", ["with space", "with\ttab", "nul\x00", "two,tokens"])
def test_a_token_that_no_header_could_carry_is_refused_and_not_repeated(bad):
    with pytest.raises(ConfigError) as caught:
        tokens_of(AuthSettings(), {"AUTH_TOKEN": bad})
    assert bad not in str(caught.value)


def test_a_token_has_one_purpose():
    for environ in ({**ENVIRON, "AUTH_TOKEN_READ": PRIMARY}, {**ENVIRON, "AUTH_TOKEN_SECONDARY": f"{SECOND},{SECOND}"}):
        with pytest.raises(ConfigError, match="given twice") as caught:
            Guard(AuthSettings(), environ)
        assert PRIMARY not in str(caught.value)


def test_new_tokens_are_long_and_all_different():
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(len(one) >= 43 and tokens_of(settings(token=one), {}).primary.reveal() == one for one in made)


def test_no_token_shows_itself():
    found = guard(ENVIRON, token="explicit-token-000")
    shown = [
        repr(found),
        str(found),
        repr(settings(token=PRIMARY, read_tokens=[READER])),
        repr(tokens_of(AuthSettings(), ENVIRON)),
    ]
    shown += [repr(found.decide("127.0.0.1", PRIMARY.encode())), repr(vars(found)), f"{found.settings}"]
    shown += [repr(config.masked((Secret(PRIMARY),))), str(config.masked(Secret(PRIMARY)))]
    for token in (PRIMARY, SECOND, READER, "explicit-token-000"):
        assert not any(token in text for text in shown)


# who it is


def test_each_token_is_who_it_is():
    found = guard(ENVIRON)
    who = {token: found.identify(token.encode()) for token in (PRIMARY, SECOND, READER)}
    assert {token: principal.name for token, principal in who.items()} == {
        PRIMARY: "primary", SECOND: "secondary 1", READER: "read 1",
    }  # fmt: skip
    assert [principal.may("write") for principal in who.values()] == [True, True, False]
    assert all(principal.may("read") for principal in who.values())
    for wrong in ("", "x", PRIMARY[:-1], PRIMARY + "x", PRIMARY.upper(), PRIMARY + "\x00", "é" * 9):
        assert found.identify(wrong.encode()) is None


def test_secondary_tokens_alone_are_enough_in_the_middle_of_a_rotation():
    found = guard({"AUTH_TOKEN_SECONDARY": SECOND})
    assert found.decide("192.0.2.1", SECOND.encode(), "write").principal.name == "secondary 1"
    assert isinstance(found.decide("127.0.0.1", None).error, Unauthenticated)
    found.check_bind("0.0.0.0")


def test_the_primary_token_is_one_compare_and_the_others_are_all_compared(monkeypatch):
    found, compared = guard({**ENVIRON, "AUTH_TOKEN_SECONDARY": "s1,s2,s3"}), []

    def counted(a, b):
        compared.append((len(a), len(b)))
        return hmac_compare(a, b)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(auth.hmac, "compare_digest", counted)
    for token, compares in ((PRIMARY, 1), ("s1", 5), ("s3", 5), (READER, 5), ("wrong", 5), ("", 5), ("w" * 9000, 5)):
        compared.clear()
        found.identify(token.encode())
        assert compared == [(32, 32)] * compares, "every comparison is of the same length, wrong lengths too"


@given(st.text(min_size=1), st.text(min_size=1))
def test_only_the_very_same_bytes_are_the_token(mine, theirs):
    if any(character.isspace() or not character.isprintable() for character in mine):
        return
    found = guard(token=mine)
    assert found.identify(mine.encode()).name == "primary"
    assert (found.identify(theirs.encode("utf-8", "surrogatepass")) is None) == (theirs != mine)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", b"abc"), ("bearer  abc ", b"abc"), ("token abc", b"abc"), ("TOKEN abc", b"abc"),
        ("Bearer Ã©", "é".encode()), ("Basic abc", None), ("Bearer", None), ("Bearer ", None), ("abc", None),
        ("", None), (None, None), ("Bearerabc", None), ("Bearer a b", b"a b"), ("Bearer 😀", b"?"),
    ],
)  # fmt: skip
def test_the_token_of_a_header(header, token):
    assert bearer(header) == token


# addresses


def test_without_token_and_allowlist_only_this_machine_passes():
    found = guard()
    for here in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"):
        assert found.decide(here, None, "write").principal is DEVELOPMENT
    for there in ("192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "nonsense", ""):
        assert isinstance(found.decide(there, b"any").error, Forbidden)


def test_an_allowlist_alone_serves_its_addresses_and_nobody_else():
    found = guard(allowed_ips=("10.0.0.0/8", "2001:db8::/32", "192.0.2.7"))
    for one in ("10.9.8.7", "::ffff:10.1.1.1", "2001:db8::5", "192.0.2.7", "[2001:db8::5]:443", "10.1.1.1:99"):
        assert found.decide(one, None, "write").allowed, one
    for one in ("127.0.0.1", "::1", "192.0.2.8", "2001:db9::1", "::ffff:11.0.0.1", "x", ""):
        assert isinstance(found.decide(one, None).error, Forbidden), one
    with pytest.raises(BindRefused):
        found.check_bind("10.0.0.1")


def test_every_layer_must_pass():
    found = guard(ENVIRON, allowed_ips=("10.0.0.0/8",))
    assert found.decide("10.0.0.1", PRIMARY.encode(), "write").allowed
    assert isinstance(found.decide("10.0.0.1", None).error, Unauthenticated)
    assert isinstance(found.decide("10.0.0.1", b"wrong").error, Unauthenticated)
    assert isinstance(found.decide("10.0.0.1", READER.encode(), "write").error, Forbidden)
    assert found.decide("10.0.0.1", READER.encode(), "read").allowed
    assert isinstance(found.decide("127.0.0.1", PRIMARY.encode()).error, Forbidden)


@given(
    st.ip_addresses(),
    st.booleans(),
    st.sampled_from([None, PRIMARY, READER, "wrong"]),
    st.sampled_from(["read", "write"]),
)
def test_a_decision_is_that_of_its_layers(address, listed, token, scope):
    found = guard(ENVIRON, allowed_ips=("0.0.0.0/1", "8000::/1") if listed else ())
    inside = not listed or any(address in net for net in networks_of(found.settings.allowed_ips, "x"))
    if address.version == 6 and address.ipv4_mapped and listed:
        inside = int(address.ipv4_mapped) < 2**31
    decision = found.decide(str(address), token and token.encode(), scope)
    assert decision.allowed == (inside and (token == PRIMARY or (token == READER and scope == "read")))
    assert decision.allowed == all(layer.passed for layer in decision.layers) == (decision.principal is not None)
    assert all(layer.why for layer in decision.layers)


@pytest.mark.parametrize(
    ("entry", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"), ("192.0.2.7", "192.0.2.7/32"), ("::1", "::1/128"), (" fd00::/8 ", "fd00::/8"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)  # fmt: skip
def test_networks(entry, network):
    assert [str(one) for one in networks_of([entry], "auth.allowed_ips")] == [network]


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "10.0.0.0/33", "host.example", "", "10.0.0", "fe80::1%eth0/64x"])
def test_what_is_no_network_is_refused_by_name(entry):
    for name in ("allowed_ips", "trusted_proxies"):
        with pytest.raises(ConfigError, match=f"auth.{name}"):
            guard(**{name: (entry,)})


def test_addresses_as_they_are_written():
    for text in ("127.0.0.1", "127.0.0.1:80", " ::ffff:127.0.0.1", "[::ffff:127.0.0.1]:8", "::ffff:7f00:1"):
        assert address_of(text) == ipaddress.ip_address("127.0.0.1")
    assert address_of("fe80::1%eth0") == ipaddress.ip_address("fe80::1")
    for text in ("", "x", "127.1", "0x7f.0.0.1", "127.0.0.1.5", "[::1", "1.2.3.4, 5.6.7.8", "2130706433"):
        assert address_of(text) is None or text == "[::1"


def test_only_a_configured_proxy_is_believed():
    found = guard(ENVIRON, trusted_proxies=("127.0.0.1", "10.0.0.0/8"))
    assert found.client("192.0.2.1", ["198.51.100.1"]) == "192.0.2.1"
    assert guard(ENVIRON).client("127.0.0.1", ["198.51.100.1"]) == "127.0.0.1"
    assert found.client("127.0.0.1") == found.client("127.0.0.1", ["", " , "]) == "127.0.0.1"
    assert found.client("127.0.0.1", ["198.51.100.1"]) == "198.51.100.1"
    assert found.client("::ffff:127.0.0.1", ["198.51.100.1"]) == "198.51.100.1"
    # What a client says of itself stands on the left; our proxies add on the right.
    assert found.client("127.0.0.1", ["10.9.9.9, 203.0.113.5, 198.51.100.1", "10.0.0.2"]) == "198.51.100.1"
    assert found.client("127.0.0.1", ["10.0.0.3, 10.0.0.2"]) == "10.0.0.3"
    assert found.client("127.0.0.1", ["10.0.0.3, nonsense"]) == "nonsense"
    assert not guard(allowed_ips=("0.0.0.0/0",), trusted_proxies=("127.0.0.1",)).decide("nonsense", None).allowed


@given(st.lists(st.ip_addresses(v=4).map(str)), st.ip_addresses(v=4, network="198.51.100.0/24").map(str))
def test_nothing_that_a_client_writes_hides_its_address(spoofed, client):
    found = guard(ENVIRON, trusted_proxies=("127.0.0.1", "10.0.0.0/8"))
    assert found.client("127.0.0.1", [", ".join([*spoofed, client]), "10.0.0.7"]) == client


# where it may listen


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.5.5.5", "::1", "[::1]", "localhost", " localhost ", "::ffff:127.0.0.1"]
)
def test_loopback_needs_no_token(host):
    resolve = {"localhost": ["127.0.0.1", "::1"]}.__getitem__
    assert is_loopback(host, resolve)
    guard().check_bind(host, resolve)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "*", "", "  ", "192.0.2.1", "fe80::1", "::ffff:0.0.0.0", "half", "away", "unknown", "none"],
)
def test_anywhere_else_needs_one_of_sixteen_characters(host):
    def resolve(name):
        if name == "unknown":
            raise OSError
        return {"half": ["127.0.0.1", "192.0.2.1"], "away": ["192.0.2.1"], "none": []}[name]

    assert not is_loopback(host, resolve)
    for refused in (guard(), guard(allowed_ips=("10.0.0.0/8",))):
        with pytest.raises(BindRefused, match="needs a token") as caught:
            refused.check_bind(host, resolve)
        assert "AUTH_TOKEN" in caught.value.hint
        assert "\n" not in caught.value.message
    for short in ({"AUTH_TOKEN": "x" * 15}, {**ENVIRON, "AUTH_TOKEN_READ": "short"}):
        with pytest.raises(BindRefused, match="at least 16 characters"):
            guard(short).check_bind(host, resolve)
    guard({"AUTH_TOKEN": "x" * 16}).check_bind(host, resolve)


def test_names_are_looked_up_by_the_system():
    assert is_loopback("localhost")
    assert not is_loopback("no-such-host.invalid")
    assert not is_loopback("a" * 300)


# wrong tokens


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_wrong_tokens_of_an_address_make_it_wait():
    clock = Clock()
    attempts = Attempts(3, 60, clock)
    assert [attempts.failed("192.0.2.1") for _ in range(2)] == [1, 2]
    assert attempts.wait("192.0.2.1") == 0
    clock.now += 10
    attempts.failed("192.0.2.1")
    assert attempts.wait("192.0.2.1") == attempts.wait("::ffff:192.0.2.1") == 50
    assert attempts.wait("192.0.2.2") == 0
    clock.now += 49
    assert attempts.wait("192.0.2.1") == 1
    clock.now += 1
    assert attempts.wait("192.0.2.1") == 0
    clock.now += 60
    assert attempts.wait("192.0.2.1") == len(attempts) == 0
    assert attempts.total == 3


def test_an_address_that_waits_is_refused_whatever_its_token():
    found = Guard(AuthSettings(max_failures=2), ENVIRON, Attempts(2, 60))
    for _ in range(2):
        assert isinstance(found.decide("192.0.2.1", b"wrong").error, Unauthenticated)
        found.attempts.failed("192.0.2.1")
    refused = found.decide("192.0.2.1", PRIMARY.encode())
    assert isinstance(refused.error, TooManyAttempts)
    assert "try again in" in refused.error.hint
    assert found.decide("192.0.2.2", PRIMARY.encode()).allowed


def test_failures_are_counted_by_subscriber_and_in_bounded_memory():
    attempts = Attempts(3, 60, Clock())
    for n in range(3):
        attempts.failed(f"2001:db8:0:1::{n}")
    assert attempts.wait("2001:db8:0:1:ffff::") > 0
    assert attempts.wait("2001:db8:0:2::") == 0
    for n in range(12_000):
        attempts.failed(str(ipaddress.ip_address(n + 2**30)))
    for _ in range(100):
        attempts.failed("x" * 10_000)
    assert len(attempts) == 10_000
    assert attempts.total == 12_103
    assert attempts.wait("2001:db8:0:1::") == 0, "forgotten, as it failed longest ago"
    assert sum(map(len, attempts._failed.values())) <= 10_003
    assert all(len(place) <= 60 for place in attempts._failed)


def test_the_guard_cannot_be_taken_apart():
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(guard(ENVIRON))
