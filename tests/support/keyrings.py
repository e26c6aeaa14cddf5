"""A keyring in memory, and ways in which keyrings fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keyring
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError


class MemoryKeyring(KeyringBackend):
    """Secrets by (service, user). ``refuse_after`` writes it fails as a locked one does; it counts what it is asked."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.secrets: dict[tuple[str, str], str] = {}
        self.reads = 0
        self.locked = False
        self.refuse_after: int | None = None

    def get_password(self, service: str, username: str) -> str | None:
        self.reads += 1
        if self.locked:
            raise KeyringLocked("the secret is HUSH")
        return self.secrets.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.refuse_after == 0:
            self.refuse_after = None
            raise KeyringLocked(f"could not write {password}")
        if self.refuse_after is not None:
            self.refuse_after -= 1
        self.secrets[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if (service, username) not in self.secrets:
            raise PasswordDeleteError("no such password")
        del self.secrets[service, username]


@contextmanager
def installed(backend: KeyringBackend) -> Iterator[None]:
    """The backend is the one that the package ``keyring`` uses, inside the block."""
    before = keyring.get_keyring()
    keyring.set_keyring(backend)
    try:
        yield
    finally:
        keyring.set_keyring(before)
