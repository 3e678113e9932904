"""The master key: rotation, the key file, and accounts' keys sealed by it."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import stat
from uuid import UUID

import pytest

from ingestd.domain.errors import Forbidden, Invalid
from ingestd.keyring import (
    Keyring,
    SealBroken,
    SealedKeys,
    add_master_key,
    drop_old_master_keys,
    master_from_file,
    new_master,
)

ONE, TWO = UUID(int=1), UUID(int=2)


@pytest.fixture(scope="module")
def master():
    return new_master()


@pytest.fixture(scope="module")
def keyring(master):
    return Keyring.load(master)


def test_sealed_keys_open_to_the_same_keys(keyring):
    sealed = keyring.new_account_keys(ONE)
    first, second = keyring.open(ONE, sealed), keyring.open(ONE, sealed)
    assert second.open_secret("webhook", first.seal_secret("webhook", b"secret")) == b"secret"
    assert second.open_value("Phone", first.seal_value("Phone", "+911")) == "+911"
    assert first.index_key == second.index_key
    assert len(bytes.fromhex(first.index_key)) == 32


def test_accounts_share_no_key(keyring):
    first, second = (keyring.open(account, keyring.new_account_keys(account)) for account in (ONE, TWO))
    assert first.index_key != second.index_key
    assert first.seal_value("Email", "a@b.example") != second.seal_value("Email", "a@b.example")


@pytest.mark.threat("T112")
def test_keys_moved_to_another_account_or_use_do_not_open(keyring):
    sealed = keyring.new_account_keys(ONE)
    for account, moved in (
        (TWO, sealed),
        (ONE, SealedKeys(data=sealed.index, index=sealed.data)),
        (ONE, SealedKeys(data=sealed.data[:-1], index=sealed.index)),
        (ONE, SealedKeys(data=sealed.data, index=b"")),
    ):
        with pytest.raises(SealBroken):
            keyring.open(account, moved)


def test_another_master_key_does_not_open(keyring):
    with pytest.raises(SealBroken):
        Keyring.load(new_master()).open(ONE, keyring.new_account_keys(ONE))


@pytest.mark.threat("T111")
def test_rotation_keeps_every_key_and_lets_the_old_master_key_go(master, keyring):
    sealed = keyring.new_account_keys(ONE)
    grown = add_master_key(master)
    both = Keyring.load(grown)
    assert both.open(ONE, sealed).index_key == keyring.open(ONE, sealed).index_key

    resealed = both.rewrap(ONE, sealed)
    assert both.rewrap(ONE, resealed) is resealed
    with pytest.raises(SealBroken):
        keyring.open(ONE, resealed)

    newest = Keyring.load(drop_old_master_keys(grown))
    assert newest.open(ONE, resealed).to_worker() == keyring.open(ONE, sealed).to_worker()
    with pytest.raises(SealBroken):
        newest.open(ONE, sealed)


@pytest.mark.threat("T111")
def test_an_account_sealed_half_by_the_old_key_is_sealed_again(master, keyring):
    sealed = keyring.new_account_keys(ONE)
    grown = add_master_key(master)
    resealed = Keyring.load(grown).rewrap(ONE, sealed)
    half = SealedKeys(data=resealed.data, index=sealed.index)
    newest = Keyring.load(drop_old_master_keys(grown))
    assert newest.open(ONE, Keyring.load(grown).rewrap(ONE, half)).index_key == keyring.open(ONE, sealed).index_key


@pytest.mark.parametrize("text", ["", "x", "a.b", "AAAA.AAAA", "é.é", "..", "QUJD.QUJD"])
@pytest.mark.parametrize("read", [Keyring.load, add_master_key, drop_old_master_keys])
def test_a_text_that_is_no_master_key_is_refused(text, read):
    with pytest.raises(Invalid) as refused:
        read(text)
    assert refused.value.code == "master_key_invalid"


@pytest.mark.parametrize("form", [" {}\n", "{}.of-no-use-any-more"])
def test_space_around_a_master_key_and_what_follows_a_dot_do_not_matter(master, keyring, form):
    assert Keyring.load(form.format(master)).opens(ONE, keyring.new_account_keys(ONE))


@pytest.mark.threat("T154")
def test_no_form_of_the_keys_shows_them(master, keyring):
    sealed = keyring.new_account_keys(ONE)
    keys = keyring.open(ONE, sealed)
    assert repr(keys) == str(keys) == "AccountKeys()"
    assert repr(sealed) == "SealedKeys()"
    assert master.split(".")[0] not in repr(keyring)
    with pytest.raises((TypeError, AttributeError)):
        pickle.dumps(keys)


@pytest.mark.threat("T153")
def test_the_key_file_is_made_once_for_our_user_only(tmp_path):
    path = tmp_path / "master.key"
    made = master_from_file(path)
    assert master_from_file(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["master.key"]
    Keyring.load(made)


@pytest.mark.threat("T153")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_file_open_to_others_is_refused(tmp_path, mode):
    path = tmp_path / "master.key"
    master_from_file(path)
    path.chmod(mode)
    with pytest.raises(Forbidden) as refused:
        master_from_file(path)
    assert refused.value.code == "key_file_open"


def test_a_key_file_is_no_link_and_no_folder(tmp_path):
    master_from_file(tmp_path / "real.key")
    (tmp_path / "link.key").symlink_to(tmp_path / "real.key")
    (tmp_path / "folder.key").mkdir(mode=0o700)
    with pytest.raises(OSError, match=r"link\.key"):
        master_from_file(tmp_path / "link.key")
    with pytest.raises(IsADirectoryError):
        master_from_file(tmp_path / "folder.key")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_file_of_another_user_is_refused(tmp_path):
    path = tmp_path / "master.key"
    master_from_file(path)
    os.chown(path, 65534, 65534)
    with pytest.raises(Forbidden):
        master_from_file(path)


def test_processes_that_start_at_once_agree_on_one_key(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: master_from_file(tmp_path / "master.key"), range(8)))
    assert len(keys) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["master.key"]
