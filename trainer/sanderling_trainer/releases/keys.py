"""The keys that sign releases, by name, in a folder: private key files, or signers elsewhere.

`NAME.pem` is a private key. `NAME.signer` names one that is kept elsewhere (a KMS, Vault, a
hardware token): its first line is a URI that `securesystemslib.signer` reads, and below stands its
public key in PEM.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from sanderling.runtime import files
from sanderling_trainer.releases.errors import ReleaseError

ROOT_KEYS = ("root-1", "root-2", "root-3")
ROOT_THRESHOLD = 2  # so many of them must sign a new root

# The roles whose keys lie where releases are published, each with one key named like the role.
ONLINE_ROLES = ("targets", "snapshot", "timestamp")

NEXT = ".next"
"""What the name of a key ends in from its creation until the root that trusts it is published."""

NAME_FIELD = "x-sanderling-name"
"""The field of a key in the root metadata that has its name."""


class KeyFolder:
    """A folder of keys; with a `password`, its private key files are encrypted.

    `password` is called when a key file is read or written, not before.
    """

    def __init__(self, folder: Path, password: Callable[[], str] | None = None) -> None:
        self.folder = folder
        self._password = password

    def create(self, name: str) -> SSlibKey:
        """Return the public key of this name, of a new private key (Ed25519) if there is none."""
        if self.location(name) is None:
            self._write_new_key(self._pem(name))
        return self.public_key(name)

    def location(self, name: str) -> str | None:
        """Return the URI, or the file, of a private key; None when the folder has neither."""
        if self._signer_file(name).is_file():
            return self._read_signer_file(name)[0]
        return str(self._pem(name)) if self._pem(name).is_file() else None

    def public_key(self, name: str) -> SSlibKey:
        """Return the public key of this name; raise `ReleaseError` when it cannot be read."""
        if self._signer_file(name).is_file():
            return self._read_signer_file(name)[1]
        return self._read_private_key(name).public_key

    def signer(self, name: str, trusted: Collection[str]) -> Signer:
        """Return the signer of this name whose key id is one of the `trusted`.

        Raises `ReleaseError` when the folder has none: devices refuse what another key signs.
        """
        signers = self.signers(name, trusted)
        if not signers:
            found = "none" if self.location(name) is None else self.public_key(name).keyid[:16]
            raise ReleaseError(
                f"{self.folder}: expected the key {name} that the repository's root trusts,"
                f" found {found}; check the folder of keys, and --repository"
            )
        return signers[0]

    def signers(self, name: str, trusted: Collection[str]) -> list[Signer]:
        """Return the signers of this name, the next one included, whose key ids are `trusted`."""
        keys = {
            candidate: self.public_key(candidate)
            for candidate in (name, name + NEXT)
            if self.location(candidate) is not None
        }
        return [self._open(name, key) for name, key in keys.items() if key.keyid in trusted]

    def adopt_next(self, name: str) -> None:
        """Give the next key of this name its final name, in place of the old one."""
        old, new = self._pem(name), self._signer_file(name)
        if self._pem(name + NEXT).is_file():
            old, new = new, old

        # A kill between the two leaves the next key, which `signer` finds too.
        old.unlink(missing_ok=True)
        files.replace_durably(new.with_name(f"{name}{NEXT}{new.suffix}"), new)

    def _pem(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def _signer_file(self, name: str) -> Path:
        return self.folder / f"{name}.signer"

    def _read_signer_file(self, name: str) -> tuple[str, SSlibKey]:
        """Return the URI and the public key of a signer that is kept elsewhere."""
        path = self._signer_file(name)
        try:
            uri, _, pem = path.read_text().partition("\n")
            return uri.strip(), SSlibKey.from_crypto(load_pem_public_key(pem.encode()))
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise ReleaseError(
                f"{path}: expected the URI of a signer, and below its public key in PEM, found:"
                f" {error}; export the public key from where the private one is kept"
            ) from error

    def _open(self, name: str, key: SSlibKey) -> Signer:
        if not self._signer_file(name).is_file():
            return self._read_private_key(name)

        uri, _ = self._read_signer_file(name)
        try:
            return Signer.from_priv_key_uri(uri, key, self._secret)
        except Exception as error:  # each kind of signer raises errors of its own library
            raise ReleaseError(
                f"{self._signer_file(name)}: expected a signer that can be reached at {uri}, found:"
                f" {type(error).__name__}: {error}"
            ) from error

    def _secret(self, name: str) -> str:
        """Return the PIN or passphrase that a signer asks for."""
        if self._password is None:
            raise ReleaseError(
                f"{self.folder}: a signer asks for a {name}; expected one of the root keys"
            )
        return self._password()

    def _read_private_key(self, name: str) -> CryptoSigner:
        path = self._pem(name)
        password = None if self._password is None else self._password().encode()
        try:
            return CryptoSigner(load_pem_private_key(path.read_bytes(), password))
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            kind = "a private key" if password is None else "a private key under the given password"
            raise ReleaseError(f"{path}: expected {kind}, in PEM, found: {error}") from error

    def _write_new_key(self, path: Path) -> None:
        """Write a private key that only its owner may read; it appears whole, or not at all."""
        encryption: KeySerializationEncryption = NoEncryption()
        if self._password is not None:
            encryption = BestAvailableEncryption(self._password().encode())
        private = Ed25519PrivateKey.generate()
        data = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = files.partial_path(path)
        with suppress(FileNotFoundError):
            partial.unlink()
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        files.replace_durably(partial, path)
        files.flush_path(self.folder.parent)


def named(key: Key, name: str) -> SSlibKey:
    """Return a copy of a public key that carries its name, as the root metadata has it."""
    return SSlibKey(key.keyid, key.keytype, key.scheme, key.keyval, {NAME_FIELD: name})


def name_of(key: Key) -> str:
    """Return the name that a key in the root metadata carries."""
    return str(key.unrecognized_fields.get(NAME_FIELD, ""))
