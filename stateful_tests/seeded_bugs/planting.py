"""How a bug is planted: the correct code with one class in the place of another, above the driver or in the engine."""

from snapcheck.impl.local import LocalSystem
from snapcheck.impl.perform import Parts
from snapcheck.impl.qcow2.driver import Qcow2Driver, open_driver
from snapcheck.impl.qcow2.image import Image
from snapcheck.impl.qcow2.state import Parts as EngineParts
from snapcheck.impl.qcow2.state import State
from snapcheck.impl.targets import Target
from snapcheck.model.faults import REGIONS


def in_layers(what: str, parts: Parts) -> Target:
    """Return the qcow2 engine under layers of which some part is replaced."""
    layers = type("PlantedSystem", (LocalSystem,), {"parts": parts})
    return Target("planted", what, open_driver, layers=layers, regions=REGIONS)


def in_engine(
    what: str, *, driver: type[Qcow2Driver] = Qcow2Driver, image: type[Image] = Image, state: type[State] = State,
    parts: EngineParts | None = None,
) -> Target:  # fmt: skip
    """Return the qcow2 engine with another driver, image or state, or with a part of the state replaced."""
    state_type: type[State] = type("PlantedState", (state,), {"__slots__": (), "parts": parts or state.parts})
    image_type: type[Image] = type("PlantedImage", (image,), {"__slots__": (), "state_type": state_type})
    driver_type: type[Qcow2Driver] = type("PlantedDriver", (driver,), {"__slots__": (), "image_type": image_type})
    return Target("planted", what, driver_type.open, regions=REGIONS)


class Insider(Qcow2Driver):
    """A driver that reaches into its image, as bugs do."""

    __slots__ = ()

    @property
    def _state(self) -> State:
        return self._image._state  # pyright: ignore[reportPrivateUsage]  # a seeded bug breaks into the engine
