"""Where the local state lies, whose it is, and who holds it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping

from blake3 import blake3
from filelock import FileLock, Timeout

from buckia.errors import BusyError
from buckia.local.fs import local_error


def state_directory(root: str, location: str, folder: str, env: Mapping[str, str] = os.environ) -> str:
    """The directory of the state that ties the tree at the real path ``root`` to ``folder`` at ``location``.

    It lies below ``BUCKIA_STATE_DIR``, else in the user's state directory; every tie has its own.
    """
    base = env.get("BUCKIA_STATE_DIR")
    if not base:
        import platformdirs

        base = platformdirs.user_state_dir("buckia", appauthor=False)
    key = blake3(b"\0".join(os.fsencode(part) for part in (root, location, folder))).hexdigest(length=16)
    return os.path.join(base, key)


def machine_id() -> str:
    """A word that is this machine's and stays so; hashed, so that it tells others nothing."""
    return blake3(f"buckia {_machine()}".encode()).hexdigest(length=16)


def _machine() -> str:
    if sys.platform == "win32":
        import winreg

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography") as key:
            return str(winreg.QueryValueEx(key, "MachineGuid")[0])
    if sys.platform == "darwin":
        command = ["/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice"]
        listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return next((line.split('"')[3] for line in listing.splitlines() if "IOPlatformUUID" in line), platform.node())
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        if os.path.exists(path):
            with open(path, encoding="ascii", errors="replace") as file:
                return file.read().strip()
    return platform.node()


class StateLock:
    """Keeps other processes away from a state directory, from construction until ``release``."""

    def __init__(self, directory: str) -> None:
        """Create the directory if need be and lock it. Raises ``BusyError``, ``LocalError``."""
        self._owner = os.path.join(directory, "owner")
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._lock = FileLock(os.path.join(directory, "lock"), timeout=0)
            self._lock.acquire()
            with open(self._owner, "w", encoding="ascii") as file:
                file.write(str(os.getpid()))
        except Timeout:
            message = f"Another buckia is running on this folder{self._who()}."
            raise BusyError(message, hint="Wait until it has finished, or stop it.") from None
        except OSError as error:
            raise local_error(error, "use the state directory", directory) from error

    def _who(self) -> str:
        try:
            with open(self._owner, encoding="ascii") as file:
                pid = file.read(20).strip()
        except (OSError, ValueError):
            return ""  # it has not said who it is: the message goes without
        return f" (process {pid})" if pid.isdigit() else ""

    def release(self) -> None:
        """Let others in."""
        self._lock.release()
