"""Tells which argument of a public call was of the wrong kind, instead of an error from deep inside.

A call that goes well is not looked at. When it raises what is no error of ours, its arguments are held against the
annotations of the method: if one does not fit, that is what is told; if all fit, the error is ours and stays.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache, wraps
from itertools import islice
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from lakehouse.errors import ArgumentInvalid, LakehouseError

T = TypeVar("T")
_LOOKED_AT = 100  # items of a list
_LARGEST = 1 << 63


def arguments_told(cls: type[T]) -> type[T]:
    """Let the public methods of a class tell what was wrong with their arguments."""
    for name, method in list(vars(cls).items()):
        if not name.startswith("_") and isinstance(method, types.FunctionType):
            setattr(cls, name, _told(method, f"{cls.__name__}.{name}"))
    return cls


def _told(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(inspect.unwrap(method)):  # it does nothing before its first item is asked for

        @wraps(method)
        def looked_at(*args: Any, **kwargs: Any) -> Any:
            if problem := _problem(method, name, args, kwargs):
                raise problem
            return method(*args, **kwargs)

        return looked_at

    @wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except LakehouseError:
            raise
        except Exception as error:  # of any kind; it goes on unless an argument explains it
            if problem := _problem(method, name, args, kwargs):
                raise problem from error
            raise

    return called


def _problem(
    method: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ArgumentInvalid | None:
    """What is wrong with the arguments of a call; an argument that is missing or unknown is Python's to tell."""
    function = inspect.unwrap(method)
    try:
        given = inspect.signature(method).bind(*args, **kwargs).arguments
    except TypeError:
        return None
    for argument, value in given.items():
        wanted = function.__annotations__.get(argument)
        parameter = inspect.signature(method).parameters[argument]
        if not isinstance(wanted, str) or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not _fits(value, _parsed(wanted), function.__globals__):
            return ArgumentInvalid(
                f"{name}: {argument} is {_shown(value)}, not {wanted}", hint=f"help({name}) says what it is for"
            )
    return None


@cache
def _parsed(annotation: str) -> ast.expr:
    return ast.parse(annotation, mode="eval").body


def _fits(value: Any, wanted: Any, scope: dict[str, Any]) -> bool:
    """Whether a value is of an annotation: a part of its text, or what a name in it stands for."""
    if isinstance(wanted, ast.BinOp):
        return _fits(value, wanted.left, scope) or _fits(value, wanted.right, scope)
    if isinstance(wanted, ast.Constant):
        return value is None if wanted.value is None else _fits(value, _parsed(str(wanted.value)), scope)
    if isinstance(wanted, ast.Subscript):
        kind = _meant(wanted.value, scope)
        if kind is Literal:
            return value in ast.literal_eval(wanted.slice)
        inner = wanted.slice.elts if isinstance(wanted.slice, ast.Tuple) else [wanted.slice]
        return _fits(value, kind, scope) and _items_fit(value, kind, inner, scope)
    if isinstance(wanted, ast.Name | ast.Attribute):
        found = _meant(wanted, scope)
        if found is None:  # imported for type checkers alone
            name = wanted.id if isinstance(wanted, ast.Name) else wanted.attr
            return any(name == kind.__name__ for kind in type(value).__mro__)
        return _fits(value, found, scope)
    if get_origin(wanted) in (Union, types.UnionType):
        return any(_fits(value, one, scope) for one in get_args(wanted))
    if get_origin(wanted) is Literal:
        return any(type(value) is type(one) and value == one for one in get_args(wanted))
    return _is(value, get_origin(wanted) or wanted)


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a class, as strictly as its users take it."""
    if kind is str:
        return isinstance(value, str) and _unicode(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and -_LARGEST <= value < _LARGEST
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and value == value
    if kind is Callable:
        return callable(value)
    if kind is types.NoneType:
        return value is None
    if not isinstance(kind, type):
        return True  # Any, a type variable: nothing is known
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that cannot be asked
        return True


def _items_fit(value: Any, kind: Any, inner: Sequence[ast.expr], scope: dict[str, Any]) -> bool:
    if isinstance(value, Mapping) and len(inner) == 2 and kind is not Callable:
        return all(
            _fits(key, inner[0], scope) and _fits(item, inner[1], scope)
            for key, item in islice(value.items(), _LOOKED_AT)
        )
    if isinstance(value, list | tuple | AbstractSet) and len(inner) == 1:
        return all(_fits(item, inner[0], scope) for item in islice(value, _LOOKED_AT))
    return True


def _meant(node: ast.expr, scope: dict[str, Any]) -> Any:
    """What a name in an annotation stands for; None: not known here."""
    if isinstance(node, ast.Attribute):
        return getattr(_meant(node.value, scope), node.attr, None)
    name = node.id if isinstance(node, ast.Name) else ""
    return scope.get(name, getattr(builtins, name, None))


def _unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except Exception:  # of any kind: it is the caller's own `__repr__`, and the argument is wrong all the same
        return f"a {type(value).__name__}"
