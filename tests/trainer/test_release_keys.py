"""The keys of a repository: made once, kept apart, encrypted or elsewhere, replaced by a root."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.signer import (
    SIGNER_FOR_URI_SCHEME,
    CryptoSigner,
    Key,
    Signature,
    Signer,
)
from tuf.api.metadata import Metadata, Root

from sanderling_trainer.event_log.object_store import LocalObjectStore, open_store
from sanderling_trainer.releases.create import create_repository
from sanderling_trainer.releases.errors import ReleaseError
from sanderling_trainer.releases.keys import ONLINE_ROLES, ROOT_KEYS, KeyFolder
from sanderling_trainer.releases.repository import ReleaseRepository
from sanderling_trainer.releases.rotation import rotate_keys
from sanderling_trainer.releases.status import read_status
from tests.support.fakes import FakeClock
from tests.support.releases import PASSWORD, ReleaseWorld, expiring, make_repository

pytestmark = pytest.mark.lab


def rotate(world: ReleaseWorld, *names: str) -> int:
    return rotate_keys(world.releases.store, KeyFolder(world.keys), world.root_keys, names)


def newest_root(world: ReleaseWorld) -> Root:
    return Metadata[Root].from_bytes((world.repository / "root.json").read_bytes()).signed


def keep_elsewhere(folder: Path, name: str, elsewhere: Path) -> None:
    """Move a private key out of a folder of keys, and leave the URI of its signer there."""
    elsewhere.mkdir(exist_ok=True)
    path = elsewhere / f"{name}.pem"
    shutil.move(folder / f"{name}.pem", path)
    public = load_pem_private_key(path.read_bytes(), None).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.signer").write_text(f"file2:{path}\n{pem.decode()}")


def test_root_keys_are_encrypted_and_apart(world: ReleaseWorld) -> None:
    """No root key lies beside the online keys, and none can be read without the password."""
    assert {path.stem for path in world.keys.iterdir()} == set(ONLINE_ROLES)
    assert {path.stem for path in world.root_keys.folder.iterdir()} == set(ROOT_KEYS)
    for path in world.root_keys.folder.iterdir():
        with pytest.raises(TypeError, match="encrypted"):
            load_pem_private_key(path.read_bytes(), None)
        load_pem_private_key(path.read_bytes(), PASSWORD.encode())
    wrong = KeyFolder(world.root_keys.folder, lambda: "wrong")
    with pytest.raises(ReleaseError, match=r"root-1\.pem: expected a private key under the given"):
        wrong.public_key("root-1")


def test_keys_in_one_folder_or_in_the_repository_are_refused(tmp_path: Path) -> None:
    """Root keys beside online keys, and keys where a web server shows them, are refused."""
    store = LocalObjectStore(tmp_path / "repository")
    for keys, root_keys, message in (
        ("keys", "keys", "expected another folder for the root keys"),
        ("repository/keys", "root-keys", "expected a folder outside the repository"),
        ("keys", "repository/root-keys", "expected a folder outside the repository"),
    ):
        with pytest.raises(ReleaseError, match=message):
            create_repository(
                store, KeyFolder(tmp_path / keys), KeyFolder(tmp_path / root_keys, lambda: PASSWORD)
            )
    assert list(tmp_path.iterdir()) == []


def test_creating_again_changes_nothing(world: ReleaseWorld) -> None:
    """The same call on a repository with releases returns its root; with other keys it is refused,
    and makes none.
    """
    make_repository(world.folder)
    assert (world.repository / "root.json").read_bytes() == world.root
    assert world.fetch() == world.slots.path(1)
    with pytest.raises(ReleaseError, match="expected no repository yet, found one"):
        make_repository(world.folder, "other-keys")
    assert not (world.folder / "other-keys").exists()


def test_a_lost_timestamp_is_not_a_new_repository(world: ReleaseWorld) -> None:
    """Where releases are but the timestamp is not, nothing is created."""
    (world.repository / "metadata" / "timestamp.json").unlink()
    with pytest.raises(ReleaseError, match="restore it from a copy"):
        make_repository(world.folder)


@pytest.mark.parametrize("url", ["s3:/bucket/repository", "s3:bucket", "memory:///x"])
def test_a_mistyped_url_is_no_folder(tmp_path: Path, monkeypatch, url: str) -> None:
    """What looks like a mistyped URL is refused, in place of a folder with new root keys."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="or the URL of an object store such as s3://"):
        open_store(url)
    assert list(tmp_path.iterdir()) == []


def test_online_keys_may_be_signers_elsewhere(world: ReleaseWorld) -> None:
    """A key whose folder has only the URI of its signer and its public key signs as before."""
    for name in ONLINE_ROLES:
        keep_elsewhere(world.keys, name, world.folder / "vault")
    world.publish("two")
    assert world.fetch() == world.slots.path(2)
    shutil.rmtree(world.folder / "vault")
    with pytest.raises(ReleaseError, match=r"targets\.signer: expected a signer that can be rea"):
        world.releases.refresh()


def test_a_repository_of_signers_elsewhere(tmp_path: Path) -> None:
    """`create` uses signers that the folders name, and makes no key for them."""
    for folder, names in (("keys", ONLINE_ROLES), ("of-keys/root-keys", ROOT_KEYS)):
        for name in names:
            KeyFolder(tmp_path / folder).create(name)
            keep_elsewhere(tmp_path / folder, name, tmp_path / "vault")
    releases = make_repository(tmp_path)
    assert list(tmp_path.rglob("keys/*.pem")) == []
    assert releases.refresh() == list(ONLINE_ROLES)


class BrokenSigner(Signer):
    """A signer elsewhere that is out of order, or signs with another key than it says."""

    def __init__(self, uri: str, key: Key) -> None:
        self.uri = uri
        self.key = key

    @classmethod
    def from_priv_key_uri(cls, uri, public_key, secrets_handler=None):
        return cls(uri, public_key)

    @property
    def public_key(self) -> Key:
        return self.key

    def sign(self, payload: bytes) -> Signature:
        if self.uri == "broken:down":
            raise ConnectionError("no route to the vault")
        return Signature(self.key.keyid, CryptoSigner.generate_ed25519().sign(payload).signature)


@pytest.mark.parametrize(
    ("uri", "message"), [("broken:down", "no route to the vault"), ("broken:key", "was signed by")]
)
def test_a_signature_is_verified_before_it_is_published(
    world: ReleaseWorld, monkeypatch: pytest.MonkeyPatch, uri: str, message: str
) -> None:
    """A signer that fails, or uses another key, is an error, and devices see what they saw."""
    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "broken", BrokenSigner)
    keep_elsewhere(world.keys, "snapshot", world.folder / "vault")
    file = world.keys / "snapshot.signer"
    file.write_text(f"{uri}\n{file.read_text().partition(chr(10))[2]}")
    with pytest.raises(ReleaseError, match=f"snapshot: expected a signature .*{message}"):
        world.publish("two")
    assert world.fetch(1) is None


def test_another_key_signs_nothing(world: ReleaseWorld) -> None:
    """Keys that the root does not trust are refused before anything is written."""
    before = sorted(world.repository.rglob("*"))
    for name in ONLINE_ROLES:
        KeyFolder(world.folder / "other").create(name)
    stranger = ReleaseRepository(world.releases.store, KeyFolder(world.folder / "other"))
    with pytest.raises(ReleaseError, match="expected the key targets that the repository's root"):
        stranger.publish(world.folder / "two")
    assert sorted(world.repository.rglob("*")) == before


@pytest.mark.parametrize("name", ONLINE_ROLES)
def test_an_online_key_is_replaced(world: ReleaseWorld, name: str) -> None:
    """Two root keys replace an online key; devices follow, and the old key signs nothing more."""
    world.fetch()
    stolen = (world.keys / f"{name}.pem").read_bytes()
    assert rotate(world, name) == 2
    world.publish("two")
    assert world.fetch(1) == world.slots.path(2)
    (world.keys / f"{name}.pem").write_bytes(stolen)
    with pytest.raises(ReleaseError, match=f"expected the key {name} that the repository's root"):
        world.releases.refresh()


def test_a_lost_root_key_is_replaced_by_the_other_two(world: ReleaseWorld) -> None:
    """Two root keys replace the third; without a second one nothing is published."""
    (world.root_keys.folder / "root-2.pem").unlink()
    lost = newest_root(world).roles["root"].keyids[1]
    assert rotate(world, "root-2") == 2
    assert lost not in newest_root(world).keys
    assert world.fetch() == world.slots.path(1)
    for name in ("root-1", "root-2"):
        (world.root_keys.folder / f"{name}.pem").unlink()
    with pytest.raises(ReleaseError, match="expected at least 2 root keys that root 2 trusts"):
        rotate(world, "root-1")
    assert newest_root(world).version == 2


def test_the_root_gets_another_year(world: ReleaseWorld) -> None:
    """Without a name all keys stay and the root's date moves on; devices follow many roots."""
    before = newest_root(world)
    for version in range(2, 6):
        assert rotate(world) == version
    after = newest_root(world)
    assert after.keys == before.keys
    assert after.expires >= before.expires
    assert after.expires > datetime.now(UTC) + timedelta(days=364)
    assert world.fetch() == world.slots.path(1)


def test_roles_expire_at_different_times(tmp_path: Path) -> None:
    """The timestamp lives for weeks, what it names for months, the root for a year; `refresh`
    signs what is near, and what depends on it.
    """
    clock = FakeClock()
    make_repository(tmp_path, clock=clock)
    store, keys = LocalObjectStore(tmp_path / "repository"), KeyFolder(tmp_path / "keys")
    releases = ReleaseRepository(store, keys, clock=clock)

    def days() -> dict[str, int]:
        now = datetime.fromtimestamp(clock.wall_ms() / 1000, UTC)
        found = read_status(store, keys, clock).expires
        return {role: round((date - now) / timedelta(days=1)) for role, date in found.items()}

    assert days() == {"root": 365, "targets": 90, "snapshot": 90, "timestamp": 14}
    assert releases.refresh(timedelta(days=10)) == []
    clock.advance(8 * 86_400)
    assert read_status(store, keys, clock).near == ["timestamp"]
    assert releases.refresh(timedelta(days=10)) == ["timestamp"]
    assert days() == {"root": 357, "targets": 82, "snapshot": 82, "timestamp": 14}
    clock.advance(75 * 86_400)
    assert releases.refresh(timedelta(days=10)) == list(ONLINE_ROLES)
    assert read_status(store, keys, clock).near == []
    clock.advance(230 * 86_400)
    assert read_status(store, keys, clock).near[0] == "root"


def test_the_timestamp_alone_needs_its_key_alone(world: ReleaseWorld) -> None:
    """A machine with nothing but the timestamp key keeps a repository valid."""
    ReleaseRepository(world.releases.store, KeyFolder(world.keys), lifetimes=expiring(5)).refresh()
    world.releases.refresh()
    (world.keys / "targets.pem").unlink()
    (world.keys / "snapshot.pem").unlink()
    assert world.releases.refresh(timedelta(days=20)) == ["timestamp"]
    assert world.fetch() == world.slots.path(1)
