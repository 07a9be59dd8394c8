"""The filters of a dashboard: each has a name and gives typed values for queries, and takes nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from lakehouse_widgets.pages import MessageInvalid


@dataclass(frozen=True)
class Filter(ABC):
    """What all filters have: the name that queries call it by."""

    name: str

    @abstractmethod
    def read(self, value: Any) -> Any:
        """The value the page sends, checked; MessageInvalid when it is none this filter could have."""

    @abstractmethod
    def start(self) -> Any:
        """The value it begins with."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What the page draws it from."""

    def parameters(self, value: Any) -> dict[str, Any]:
        """The values for `$name` in queries."""
        return {self.name: value}

    def refused(self) -> MessageInvalid:
        return MessageInvalid(f"the filter '{self.name}' cannot have this value")


@dataclass(frozen=True)
class Select(Filter):
    """One of several texts: `WHERE origin = $origin`."""

    choices: Sequence[str]

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self.choices:
            raise self.refused()
        return value

    def start(self) -> str:
        return self.choices[0]

    def described(self) -> dict[str, Any]:
        return {"kind": "select", "name": self.name, "choices": list(self.choices)}


@dataclass(frozen=True)
class MultiSelect(Filter):
    """Any of several texts, all at first: `WHERE carrier = ANY($carrier)`."""

    choices: Sequence[str]

    def read(self, value: Any) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(v, str) and v in self.choices for v in value):
            raise self.refused()
        return [choice for choice in self.choices if choice in value]

    def start(self) -> list[str]:
        return list(self.choices)

    def described(self) -> dict[str, Any]:
        return {"kind": "multiselect", "name": self.name, "choices": list(self.choices)}


@dataclass(frozen=True)
class DateRange(Filter):
    """Two days: `WHERE day BETWEEN $when_from AND $when_to` for the name `when`."""

    first: date
    last: date

    def read(self, value: Any) -> tuple[date, date]:
        try:
            low, high = (date.fromisoformat(part) for part in value)
        except (TypeError, ValueError):
            raise self.refused() from None
        if not self.first <= low <= high <= self.last:
            raise self.refused()
        return low, high

    def start(self) -> tuple[date, date]:
        return self.first, self.last

    def described(self) -> dict[str, Any]:
        return {"kind": "dates", "name": self.name, "low": str(self.first), "high": str(self.last)}

    def parameters(self, value: Any) -> dict[str, Any]:
        return {f"{self.name}_from": value[0], f"{self.name}_to": value[1]}


@dataclass(frozen=True)
class Range(Filter):
    """Two numbers: `WHERE delay BETWEEN $delay_from AND $delay_to` for the name `delay`."""

    low: float
    high: float

    def read(self, value: Any) -> tuple[float, float]:
        if not isinstance(value, list) or len(value) != 2 or not all(type(v) in (int, float) for v in value):
            raise self.refused()
        if not self.low <= value[0] <= value[1] <= self.high:  # false for NaN, too
            raise self.refused()
        return value[0], value[1]

    def start(self) -> tuple[float, float]:
        return self.low, self.high

    def described(self) -> dict[str, Any]:
        return {"kind": "numbers", "name": self.name, "low": self.low, "high": self.high}

    def parameters(self, value: Any) -> dict[str, Any]:
        return {f"{self.name}_from": value[0], f"{self.name}_to": value[1]}
