"""`snapcheck drivers`: what can be put under test here."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Final

from snapcheck.cli.say import say
from snapcheck.impl.targets import Target, known_targets

NOT_BUILT: Final = {"qemu": "a running QEMU, through QMP: not built yet"}
OWN: Final = (
    "package.module:attribute  a driver of your own: `snapcheck new-driver NAME` writes one to start from",
    "                          attribute is open_driver(disk, *, read_only, create) or",
    "                          factory(disks, *, semantics, recorder)",
)


def drivers_command() -> int:
    """Print each driver, what it can do, and what is missing to use it."""
    for target in known_targets():
        say(f"{target.name:<25} {target.what}")
        for line in abilities(target):
            say(f"{'':<25} {line}")
    for line in OWN:
        say(line)
    say("not usable")
    for name, why in NOT_BUILT.items():
        say(f"{name:<25} {why}")
    return 0


def abilities(target: Target) -> Iterator[str]:
    """Yield what a driver says that it can do, and what it can not."""
    can = target.capabilities
    if can is None:
        return
    flags = [(spec.name.replace("_", " "), getattr(can, spec.name)) for spec in fields(can) if spec.name != "format"]
    for word, wanted in (("can: ", True), ("can not: ", False)):
        names = [name for name, able in flags if able is wanted]
        if names:
            yield word + ", ".join(names)
    if can.format:
        yield f"images: {can.format}, also those that something else made"
