"""The scope of an exploration as a Promela model of our own, for SPIN: the same states, the same transitions.

Each move is an option of one loop, in a d_step, so that a transition of SPIN is one of ours. What would lead out of the
scope is not enabled, as it is not counted by us either.
"""

from collections.abc import Callable, Iterator

from snapcheck.model.scope import Scope


def promela(scope: Scope) -> str:
    """Return the model of a scope without duplicate names."""
    assert not scope.duplicates, "names are looked up by the first that fits"
    writer = _Writer(scope)
    options = "\n".join(f"  :: d_step {{ {option} }}" for option in writer.options())
    return "\n".join((*writer.declarations(), "active proctype moves() {", "  do", options, "  od", "}", ""))


class _Writer:
    """Writes expressions and statements; names count from 1, 0 stands where there is no snapshot."""

    def __init__(self, scope: Scope) -> None:
        self._devices = range(scope.devices)
        self._names = range(1, scope.names + 1)
        self._values = range(scope.values)
        self._places = range(scope.snapshots_max)

    def declarations(self) -> Iterator[str]:
        for device in self._devices:
            yield f"byte active{device}, count{device};"
            yield f"byte name{device}[{len(self._places)}], value{device}[{len(self._places)}];"

    def options(self) -> Iterator[str]:
        """Yield every move; the first statement of each says whether it is enabled."""
        for device in self._devices:
            yield from self._on_one(device)
        yield from ("true", "true")  # all-can-snapshot, all-find-vmstate-bs
        for name in self._names:
            yield from self._find(name)
            yield from self._create(name)
            yield from self._goto(name)
            yield from self._delete(name)

    # --- one device -------------------------------------------------------------------------------
    def _on_one(self, device: int) -> Iterator[str]:
        for value in self._values:
            yield f"active{device} = {value}"
        yield from ("true",) * 3  # can, list, list refused
        for name in self._names:
            yield from ("true",) * 2  # find, find refused
            yield f"{self._has_room(device, name)}; {self._take(device, name)}"
            yield self._back(device, name)
            yield self._drop(device, name)
            yield from ("true",) * 3  # create, goto and delete refused
        for place in self._places:
            there = f"count{device} > {place}"
            yield f"{there}; active{device} = value{device}[{place}]"
            yield f"{there}; {self._drop_at(device, place)}"
            yield from (there,) * 2  # both refused

    def _has(self, device: int, name: int) -> str:
        return f"({' || '.join(f'name{device}[{place}] == {name}' for place in self._places)})"

    def _has_room(self, device: int, name: int) -> str:
        return f"(count{device} < {len(self._places)} && !{self._has(device, name)})"

    def _take(self, device: int, name: int) -> str:
        at = f"count{device}"
        return f"name{device}[{at}] = {name}; value{device}[{at}] = active{device}; {at}++"

    def _back(self, device: int, name: int) -> str:
        return self._by_name(device, name, lambda place: f"active{device} = value{device}[{place}]")

    def _drop(self, device: int, name: int) -> str:
        return self._by_name(device, name, lambda place: self._drop_at(device, place))

    def _by_name(self, device: int, name: int, at: Callable[[int], str]) -> str:
        found = " ".join(f":: name{device}[{place}] == {name} -> {at(place)}" for place in self._places)
        return f"if {found} :: else fi"

    def _drop_at(self, device: int, place: int) -> str:
        last = self._places[-1]
        shifts = [
            f"name{device}[{to}] = name{device}[{to + 1}]; value{device}[{to}] = value{device}[{to + 1}]"
            for to in range(place, last)
        ]
        return "; ".join((*shifts, f"name{device}[{last}] = 0; value{device}[{last}] = 0; count{device}--"))

    # --- the group --------------------------------------------------------------------------------
    def _find(self, name: int) -> Iterator[str]:
        yield "true"
        for bad in self._devices:
            yield _all(self._has(device, name) for device in self._devices[:bad])

    def _create(self, name: int) -> Iterator[str]:
        for reached in range(len(self._devices) + 1):  # refused at that device, or at none
            before = self._devices[:reached]
            room = _all(self._has_room(device, name) for device in before)
            yield "; ".join((room, *(self._take(device, name) for device in before)))

    def _goto(self, name: int) -> Iterator[str]:
        walk = ""
        for device in reversed(self._devices):
            inner = f"; {walk}" if walk else ""
            walk = f"if :: {self._has(device, name)} -> {self._back(device, name)}{inner} :: else fi"
        yield walk
        for bad in self._devices:
            before = self._devices[:bad]
            everywhere = _all(self._has(device, name) for device in before)
            yield "; ".join((everywhere, *(self._back(device, name) for device in before)))

    def _delete(self, name: int) -> Iterator[str]:
        yield "; ".join(self._drop(device, name) for device in self._devices)
        for bad in self._devices:
            others = (self._drop(device, name) for device in self._devices if device != bad)
            yield "; ".join(("true", *others))  # its list can not be read: it is skipped
            before = (self._drop(device, name) for device in self._devices[:bad])
            yield "; ".join((self._has(bad, name), *before))


def _all(conditions: Iterator[str]) -> str:
    return " && ".join(conditions) or "true"
