"""Arguments of the wrong kind, in every public call: an error of ours that says what was wrong, never one from inside."""

import inspect

import pytest

import lakehouse
from lakehouse.arguments import arguments_told
from lakehouse.errors import ArgumentInvalid, LakehouseError

PARTS = ("pathway", "observer", "workflows", "storage", "catalog", "maintenance", "reports", "lake")
ODD = (None, 5, [], object(), "\ud800\0")
# The end of the lake, processes that are started, and what waits for events.
LEFT_ALONE = {"close", "sandbox", "dashboards", "follow"}


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arguments")
    with lakehouse.open(folder / "lake") as lake, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where a text is taken for a path
        lake.sql("CREATE TABLE t AS SELECT 1 AS a")
        yield lake


@pytest.mark.parametrize("part", PARTS)
def test_no_call_fails_from_inside(lake, part):
    place = lake if part == "lake" else getattr(lake, part)
    calls = 0
    for name, method in inspect.getmembers(place, inspect.ismethod):
        if name.startswith("_") or name in LEFT_ALONE:
            continue
        arguments = [
            one
            for one in inspect.signature(method).parameters.values()
            if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        ]
        given = {one.name: "x" for one in arguments if one.default is one.empty}
        for argument in (one.name for one in arguments):
            for odd in ODD:
                calls += 1
                try:
                    answer = method(**{**given, argument: odd})
                    if inspect.isgenerator(answer):
                        next(answer, None)
                except LakehouseError:
                    pass
                except Exception as error:  # of any kind: that is what is looked for
                    pytest.fail(f"{part}.{name}({argument}={odd!r}): {error!r}")
    assert calls >= 5


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda lake: lake.backup(5), r"Lakehouse.backup: \w+ is 5, not "),
        (lambda lake: lake.pathway.add_many(5), r"Pathway.add_many: items is 5, not Iterable"),
        (lambda lake: lake.pathway.add_many([5]), r"5 is not what add takes"),
        (lambda lake: list(lake.pathway.pages("many")), r"Memory.pages: size is 'many', not int"),
        (lambda lake: lake.observer.record(None), r"not|event"),
        (lambda lake: lake.storage.put("k", "text"), r"data|bytes"),
    ],
)
def test_what_was_wrong_is_said(lake, call, told):
    with pytest.raises(LakehouseError, match=told):
        call(lake)


@arguments_told
class Told:
    """Says what it was given."""

    def take(self, number: int, names: "list[str] | None" = None, **more: object) -> object:
        if more.get("broken"):
            raise KeyError("ours")
        return number + 0, [name.upper() for name in names or ()]


Told.take.__wrapped__.__annotations__ = {"number": "int", "names": "list[str] | None"}


def test_only_what_does_not_fit_is_told_and_our_own_faults_stay():
    told = Told()
    assert told.take(1, ["a"]) == (1, ["A"])
    assert told.take(True) == (1, [])  # nothing is looked at in a call that goes well
    with pytest.raises(ArgumentInvalid, match=r"Told.take: number is 'x', not int"):
        told.take("x")
    with pytest.raises(ArgumentInvalid, match=r"names is \['a', 3\], not list\[str\] \| None"):
        told.take(1, ["a", 3])
    with pytest.raises(KeyError, match="ours"):
        told.take(1, broken=True)
    for call in (told.take, lambda: told.take(1, 2, 3)):
        with pytest.raises(TypeError):
            call()
