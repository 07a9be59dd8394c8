"""What a route is: its pattern, its label, and how its query string and body are decoded."""

import re
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.errors import LakehouseError, RequestInvalid
from lakehouse.server.routes.all import ROUTES
from lakehouse.server.routing import SCOPES, Route, audited, decoded_body, decoded_query


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    limit: Annotated[int, msgspec.Meta(ge=1)] = 10
    deep: bool = False
    tags: list[str] = []


def route(method="GET", path="/x", label="read", **more):
    return Route(method, path, label, lambda _: None, **more)


@pytest.mark.parametrize("label", [None, "", "secret", "READ"])
def test_a_route_without_a_label_is_refused(label):
    with pytest.raises(LakehouseError, match="has no label"):
        audited([route(), route("POST", "/y", label)])


def test_a_route_that_is_public_twice_or_of_no_method_is_refused():
    with pytest.raises(LakehouseError, match="only /health may be"):
        audited([route("GET", "/tables", "public")])
    with pytest.raises(LakehouseError, match="twice"):
        audited([route("GET", "/a/{x}"), route("GET", "/a/{y}")])
    with pytest.raises(LakehouseError, match="no method"):
        audited([route("FETCH")])


def test_every_route_that_is_served_has_a_label_and_says_what_it_does():
    assert sum(len(methods) for methods in audited(ROUTES).values()) == len(ROUTES)
    for one in ROUTES:
        assert one.label in SCOPES, one
        assert one.label == "admin" or (one.label == "read") == (
            one.method in ("GET", "HEAD") or one.path in ("/pathway/search", "/query", "/queries/{query_id}")
        ), one
        assert one.run.__doc__, one
        assert not (one.streams and one.body), one


def test_patterns():
    assert re.fullmatch(route(path="/tables/{table}/files").pattern(), "/tables/a.b/files")[1] == "a.b"
    assert not re.fullmatch(route(path="/tables/{table}").pattern(), "/tables/a/b")
    assert re.fullmatch(route(path="/storage/{key...}").pattern(), "/storage/a/b")[1] == "a/b"
    assert not re.fullmatch(route(path="/a.b").pattern(), "/aXb")


def test_a_query_string():
    found = decoded_query({"name": [b"x"], "limit": [b"3"], "deep": [b"true"], "tags": [b"a", b"b"]}, Wanted)
    assert (found.name, found.limit, found.deep, found.tags) == ("x", 3, True, ["a", "b"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "name"), ({"name": [b"x"], "nme": [b"y"]}, "nme"), ({"name": [b"x", b"y"]}, "2 times"),
        ({"name": [b"\xff"]}, "UTF-8"), ({"name": [b"x"], "limit": [b"0"]}, "$.limit"),
        ({"name": [b"x"], "limit": [b"1.5"]}, "$.limit"), ({"name": [b"x"], "deep": [b"perhaps"]}, "$.deep"),
    ],
)  # fmt: skip
def test_a_wrong_query_string_is_named(arguments, says):
    with pytest.raises(RequestInvalid) as caught:
        decoded_query(arguments, Wanted)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no JSON"), (b"{", "no JSON"), (b"[]", "object"), (b'{"name": 1}', "$.name"), (b"\xff", "no JSON"),
        (b'{"name": "x", "other": 1}', "other"), (b'{"name": "x"} x', "no JSON"), (b'{"name": "x", "limit": -1}', "$.limit"),
        (b'{"name": "x", "tags": ["a", 1]}', "$.tags[1]"), (b"[" * 100_000, ""),
    ],
)  # fmt: skip
def test_a_wrong_body_is_named(content, says):
    with pytest.raises(RequestInvalid) as caught:
        decoded_body(content, Wanted)
    assert says in str(caught.value)


def test_a_body_where_none_is_wanted():
    assert decoded_body(b" {} ", None) is decoded_body(b"", None) is None
    with pytest.raises(RequestInvalid, match="takes no body"):
        decoded_body(b'{"a": 1}', None)


@given(st.binary())
def test_no_bytes_are_more_than_a_wrong_body(content):
    try:
        decoded_body(content, Wanted)
    except RequestInvalid:
        pass


@given(st.dictionaries(st.text(), st.lists(st.binary(), min_size=1)))
def test_no_query_string_is_more_than_a_wrong_one(arguments):
    try:
        decoded_query(arguments, Wanted)
    except RequestInvalid:
        pass
