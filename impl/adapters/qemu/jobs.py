"""QEMU as a System once more, through its QMP jobs: snapshot-save, snapshot-load and snapshot-delete (SPEC C.5).

They are given the devices that HMP would find by itself. snapshot-save does not overwrite, so what has the name is
deleted first, as whoever uses the jobs does it. Of several with one name only one is deleted, and snapshot-save refuses
what savevm does beside the others: so there is no job for that, and it is left to savevm.
"""

from snapcheck.impl.adapters.qemu.system import OK, QemuSystem
from snapcheck.model.history import Result
from snapcheck.model.operations import DelVm, LoadVm, SaveVm
from snapcheck.model.setup import Kind


class QemuJobs(QemuSystem):
    """Devices in a QEMU that is asked through jobs."""

    def _nodes(self) -> list[str]:
        """Return the devices that take part, in the order of the walk (A.10)."""
        devices = self._devices.by_name.values()
        return [each.name for each in devices if each.is_open and not each.read_only and each.spec.kind != Kind.EMPTY]

    def _is_there_twice(self, name: str) -> bool:
        """Tell whether a device that takes part has more than one snapshot called `name`, as far as it is shown."""
        nodes = self._nodes()
        return any(names.count(name) > 1 for node, names in self._looker.names_now().items() if node in nodes)

    def _job(self, kind: str, name: str, *, vmstate: bool) -> Result:
        nodes = self._nodes()
        arguments: dict[str, object] = {"tag": name, "devices": nodes}
        if vmstate:
            arguments["vmstate"] = nodes[0] if nodes else "nobody"
        self._monitor.run_job(f"snapshot-{kind}", arguments)
        return OK

    def _save_vm(self, operation: SaveVm) -> Result:
        assert operation.name is not None, "the harness names what this system saves (Abilities.vmstate_bytes)"
        if self._is_there_twice(operation.name):
            return super()._save_vm(operation)
        if self._nodes():
            self._job("delete", operation.name, vmstate=False)
        return self._job("save", operation.name, vmstate=True)

    def _loaded(self, operation: LoadVm) -> Result:
        return self._job("load", operation.name, vmstate=True)

    def _del_vm(self, operation: DelVm) -> Result:
        return self._job("delete", operation.name, vmstate=False) if self._nodes() else OK
