"""The filters of a dashboard: each has a name and gives typed values for queries, and takes nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from lakehouse_widgets.pages import MessageInvalid

Choices = Sequence[str] | Mapping[str, str]
"""Values to choose from, or each value and the words the page shows for it."""


@dataclass(frozen=True)
class Filter(ABC):
    """What all filters have: the name that queries call it by, and the words above it on the page."""

    name: str
    label: str = field(default="", kw_only=True)
    """Empty: the name."""

    @abstractmethod
    def read(self, value: Any) -> Any:
        """The value the page sends, checked; MessageInvalid when it is none this filter could have."""

    @abstractmethod
    def start(self) -> Any:
        """The value it begins with."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What the page draws it from."""

    def shown(self, value: Any) -> Any:
        """A value as the page has it, which `read` takes."""
        return value

    def parameters(self, value: Any) -> dict[str, Any]:
        """The values for `$name` in queries."""
        return {self.name: value}

    def _described(self, kind: str, **more: Any) -> dict[str, Any]:
        return {"kind": kind, "name": self.name, "label": self.label or self.name, **more}

    def _refused(self, wanted: str) -> MessageInvalid:
        return MessageInvalid(f"{self.label or self.name}: {wanted}")


@dataclass(frozen=True)
class Select(Filter):
    """One of several texts: `WHERE origin = $origin`."""

    choices: Choices

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self.choices:
            raise self._refused("choose one of those that are listed")
        return value

    def start(self) -> str:
        return next(iter(self.choices))

    def described(self) -> dict[str, Any]:
        return self._described("select", choices=_pairs(self.choices))


@dataclass(frozen=True)
class MultiSelect(Filter):
    """Any of several texts, all at first: `WHERE carrier = ANY($carrier)`."""

    choices: Choices

    def read(self, value: Any) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(v, str) and v in self.choices for v in value):
            raise self._refused("choose among those that are listed")
        return [choice for choice in self.choices if choice in value]

    def start(self) -> list[str]:
        return list(self.choices)

    def described(self) -> dict[str, Any]:
        return self._described("multiselect", choices=_pairs(self.choices))


@dataclass(frozen=True)
class DateRange(Filter):
    """Two days: `WHERE day BETWEEN $when_from AND $when_to` for the name `when`."""

    first: date
    last: date

    def read(self, value: Any) -> tuple[date, date]:
        try:
            low, high = (date.fromisoformat(part) for part in value)
        except (TypeError, ValueError):
            low, high = date.max, date.min
        if not self.first <= low <= high <= self.last:
            raise self._refused(f"two days from {self.first} to {self.last}, the earlier one first")
        return low, high

    def start(self) -> tuple[date, date]:
        return self.first, self.last

    def shown(self, value: Any) -> list[str]:
        return [day.isoformat() for day in value]

    def described(self) -> dict[str, Any]:
        return self._described("dates", low=self.first.isoformat(), high=self.last.isoformat())

    def parameters(self, value: Any) -> dict[str, Any]:
        return {f"{self.name}_from": value[0], f"{self.name}_to": value[1]}


@dataclass(frozen=True)
class Range(Filter):
    """Two numbers: `WHERE delay BETWEEN $delay_from AND $delay_to` for the name `delay`."""

    low: float
    high: float
    unit: str = field(default="", kw_only=True)
    """Stands behind the numbers on the page."""

    def read(self, value: Any) -> tuple[float, float]:
        good = isinstance(value, list) and len(value) == 2 and all(type(v) in (int, float) for v in value)
        if not good or not self.low <= value[0] <= value[1] <= self.high:  # false for NaN, too
            raise self._refused(f"two numbers from {self.low:,} to {self.high:,}, the smaller one first")
        return value[0], value[1]

    def start(self) -> tuple[float, float]:
        return self.low, self.high

    def shown(self, value: Any) -> list[float]:
        return list(value)

    def described(self) -> dict[str, Any]:
        return self._described("numbers", low=self.low, high=self.high, unit=self.unit)

    def parameters(self, value: Any) -> dict[str, Any]:
        return {f"{self.name}_from": value[0], f"{self.name}_to": value[1]}


def _pairs(choices: Choices) -> list[list[str]]:
    return [list(pair) for pair in choices.items()] if isinstance(choices, Mapping) else [[c, c] for c in choices]
