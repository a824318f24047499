"""`snapcheck drivers`: what can be put under test here."""

import textwrap
from collections.abc import Iterator
from dataclasses import fields
from typing import Final

from snapcheck.cli.say import say
from snapcheck.impl.targets import StartError, Target, known_targets
from snapcheck.model.operations import KINDS

OWN: Final = (
    "package.module:attribute  a driver of your own: `snapcheck new-driver NAME` writes one to start from",
    "                          attribute is open_driver(disk, *, read_only, create) or",
    "                          factory(disks, *, semantics, recorder)",
)


def drivers_command() -> int:
    """Print each driver, what it can do, and what is missing to use it."""
    missing: list[tuple[Target, StartError]] = []
    for target in known_targets():
        try:
            lines = [*abilities(target)]
        except StartError as error:
            missing.append((target, error))
            continue
        say(f"{target.name:<25} {target.what}")
        for line in lines:
            say(f"{'':<25} {line}")
    for line in OWN:
        say(line)
    if missing:
        say("not usable here")
    for target, why in missing:
        say(f"{target.name:<25} {target.what}")
        say(f"{'':<25} {why}")
    return 0


def abilities(target: Target) -> Iterator[str]:
    """Yield what a driver says that it can do, and what it can not."""
    can = target.capabilities
    if can is None:
        yield from textwrap.wrap(f"can: {', '.join(target.abilities.operations or KINDS.values())}", 73)
        return
    flags = [(spec.name.replace("_", " "), getattr(can, spec.name)) for spec in fields(can) if spec.name != "format"]
    for word, wanted in (("can: ", True), ("can not: ", False)):
        names = [name for name, able in flags if able is wanted]
        if names:
            yield word + ", ".join(names)
    if can.format:
        yield f"images: {can.format}, also those that something else made"
