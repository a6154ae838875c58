"""The devices behind the lab's machines: one thread that serves all of their sockets."""

import logging
import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.vm.errors import LabError
from tests.vm.nsm_device import NsmPort
from tests.vm.switch import Switch, VsockPort
from tests.vm.vhost_user import Device

_log = logging.getLogger(__name__)


class Backends:
    """Serves machines while the context lasts.

    A machine that breaks a protocol is cut off and noted in `breaches`; the others go on.
    """

    def __init__(self, folder: Path) -> None:
        """Sockets will be in `folder`, whose path has to be short (unix(7): 107 bytes in all)."""
        self._folder = folder
        self._selector = selectors.DefaultSelector()
        self._switch = Switch()
        self._lock = threading.RLock()
        self._awaited: dict[Path, tuple[socket.socket, int | None]] = {}
        self._devices: list[Device] = []
        self._number = 0
        self._failure: BaseException | None = None
        self._waker, self._wakened = socket.socketpair()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="lab back ends", daemon=True)

    def __enter__(self) -> Self:
        self._selector.register(self._wakened, selectors.EVENT_READ, lambda: None)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._waker.send(b"\0")
        self._thread.join()
        for path in list(self._awaited):
            self.discard(path)
        for device in self._devices:
            device.close()
        self._selector.close()
        self._waker.close()
        self._wakened.close()

    @property
    def breaches(self) -> list[str]:
        """What machines did wrong, in the order in which they came."""
        with self._lock:
            return [device.breach for device in self._devices if device.breach]

    @property
    def failure(self) -> BaseException | None:
        """What ended the thread before its time, if anything did."""
        return self._failure

    def vsock(self, cid: int) -> Path:
        """A new socket for one machine's vsock device.

        Raises:
            LabError: a machine has this CID, or is awaited with it.
        """
        with self._lock:
            taken = [other for _, other in self._awaited.values()]
            taken += [
                device.cid
                for device in self._devices
                if isinstance(device, VsockPort) and not device.closed
            ]
            if cid in taken:
                raise LabError(f"CID {cid} is another machine's")
            return self._await(
                lambda connection: VsockPort(
                    connection, self._selector, cid=cid, switch=self._switch
                ),
                cid,
            )

    def nsm(self, exchange: Callable[[bytes], bytes]) -> Path:
        """A new socket for one machine's security module, whose requests `exchange` answers."""
        with self._lock:
            return self._await(
                lambda connection: NsmPort(connection, self._selector, exchange=exchange), None
            )

    def discard(self, path: Path) -> None:
        """Wait no longer for the machine of this socket; nothing where it has come."""
        with self._lock:
            listener, _ = self._awaited.pop(path, (None, None))
            if listener is not None:
                self._selector.unregister(listener)
                listener.close()
                path.unlink()

    def _await(self, make: Callable[[socket.socket], Device], cid: int | None) -> Path:
        self._number += 1
        path = self._folder / f"{self._number}.vhost"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
            listener.listen(1)
        except BaseException:
            listener.close()
            raise
        self._awaited[path] = (listener, cid)
        self._selector.register(
            listener, selectors.EVENT_READ, lambda: self._accept(path, listener, make)
        )
        return path

    def _accept(
        self, path: Path, listener: socket.socket, make: Callable[[socket.socket], Device]
    ) -> None:
        connection, _ = listener.accept()
        self.discard(path)
        self._devices.append(make(connection))

    def _run(self) -> None:
        try:
            while not self._stopping:
                ready = self._selector.select()
                with self._lock:
                    for key, _ in ready:
                        self._serve(key)
        except BaseException as error:  # noqa: BLE001 - told to who waits for the machines
            self._failure = error
            _log.exception("the back ends' thread has ended")

    def _serve(self, key: selectors.SelectorKey) -> None:
        # An earlier event of this turn may have closed it, or even given its number to another.
        if self._selector.get_map().get(key.fd) is not key:
            return
        key.data()
