"""Serves the devices of all machines, in one thread."""

import logging
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Self

from tests.vm.devices import NsmPort, Switch, VsockPort
from tests.vm.programs import LabError
from tests.vm.vhost_user import Device

_log = logging.getLogger(__name__)


class Backends:
    """Serves machines while the context lasts.

    A device that fails is closed, and the failure kept in `failures`; the others go on.
    """

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self._selector = selectors.DefaultSelector()
        self._switch = Switch()
        self._devices: list[Device] = []
        self._lock = threading.RLock()
        self._waker, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waker.send(b"\0")
        self._thread.join()
        for device in self._devices:
            device.close()
        self._selector.close()
        self._waker.close()
        self._woken.close()

    def vsock(self, cid: int) -> socket.socket:
        """Return QEMU's end of a new machine's vsock device.

        Raises:
            LabError: Another machine has this CID.
        """
        with self._lock:
            if cid in self._switch.ports:
                raise LabError(f"CID {cid} is another machine's")
            return self._connect(
                lambda connection: VsockPort(connection, self._selector, cid, self._switch)
            )

    def nsm(self, exchange: Callable[[bytes], bytes]) -> socket.socket:
        """Return QEMU's end of a new machine's NSM, whose requests `exchange` answers."""
        with self._lock:
            return self._connect(lambda connection: NsmPort(connection, self._selector, exchange))

    def release(self, cid: int) -> None:
        """Free the CID of a machine that has ended, if it is not yet free."""
        with self._lock:
            if cid in self._switch.ports:
                self._switch.ports[cid].close()

    def _connect(self, make: Callable[[socket.socket], Device]) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._devices.append(make(ours))
        return theirs

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                with self._lock:
                    if key.data is None:
                        return
                    # An earlier event may have closed it.
                    if self._selector.get_map().get(key.fd) is key:
                        self._serve(*key.data)

    def _serve(self, device: Device, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever it is, the run fails by it
            self.failures.append(error)
            _log.exception("a device of the lab fails")
            device.close()
