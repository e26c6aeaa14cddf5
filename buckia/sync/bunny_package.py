"""The package ``bunnycdnpython`` as the way of objects' bytes to and from Bunny, for those who want it.

It moves whole objects through files, opens a connection for each, knows no timeout, and drops sizes, checksums and most
errors. So it is trusted with nothing: `buckia.sync.bunny` checks each of its calls by a request of its own.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

from buckia.errors import MissingExtraError, Transient
from buckia.sync.bunny_http import Answer, BunnyHost, broken

_NAME = "object"


class BunnyPackage:
    """Puts, gets and deletes objects of ``zone`` at ``host``, by a ``BunnyCDN.Storage.Storage`` or what stands for it.

    Answers have a status and no reason, as the package keeps none. Raises `Transient` when no answer came.
    """

    def __init__(self, host: BunnyHost, zone: str, *, storage: Any = None) -> None:
        self._host = host
        self._zone = zone
        self._given = storage

    def _storage(self) -> Any:
        if self._given is None:
            storage = import_module("BunnyCDN.Storage").Storage(self._host.key, self._zone)
            # It knows hosts by region only.
            storage.base_url = f"{self._host.url}/{self._zone}/"
            self._given = storage
        return self._given

    def put(self, key: str, data: memoryview) -> Answer:
        """Sends an object."""
        with TemporaryDirectory(prefix="buckia-") as directory:
            with open(os.path.join(directory, _NAME), "wb") as file:
                file.write(data)
            return self._call("PutFile", _NAME, key, directory)

    def get(self, key: str) -> Answer:
        """Fetches an object."""
        with TemporaryDirectory(prefix="buckia-") as directory:
            answer = self._call("DownloadFile", key, directory)
            if answer.status != 200:
                return answer
            (name,) = os.listdir(directory)
            with open(os.path.join(directory, name), "rb") as file:
                return Answer(200, {}, file.read())

    def delete(self, key: str) -> Answer:
        """Deletes an object."""
        return self._call("DeleteFile", key)

    def _call(self, name: str, *arguments: str) -> Answer:
        import requests

        call = getattr(self._storage(), name)
        try:
            said = call(*arguments)
        except requests.RequestException as error:
            raise broken(error, self._host.where) from error
        except UnboundLocalError as error:
            # How it fails when nobody answers to a get or a delete.
            raise Transient(f"{self._host.where}: no answer came.") from error
        # It calls a refused delete a success, too: the status is what counts.
        return Answer(int(said["HTTP"]), {})


def require() -> None:
    """Raises `MissingExtraError` unless the package is there."""
    if find_spec("BunnyCDN") is None:
        raise MissingExtraError(
            "The transport bunnycdnpython needs the package of that name.", hint="pip install bunnycdnpython"
        )
