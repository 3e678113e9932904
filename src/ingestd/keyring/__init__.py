"""Keys: what is sealed, under which key; the only package that knows Tink.

    master key          one line of text, from the settings or the embedded default's file; rotated
    └── account keys    sealed by the master key, stored in the account's row
        ├── data        three keysets: values (AES-SIV), blobs (streaming AES-GCM), secrets (AES-GCM)
        └── index       32 bytes that give people their ids; never rotated, because the ids would change

Everything sealed is bound to its place: an account's keys to the account and their use, a value to its attribute, a
blob to its name. What is moved, changed, cut short or opened with other keys raises `SealBroken`. All of it is
synchronous.
"""

from ingestd.keyring.account import AccountKeys
from ingestd.keyring.master import (
    Keyring,
    SealedKeys,
    add_master_key,
    drop_old_master_keys,
    master_from_file,
    new_master,
    replace_master_file,
)
from ingestd.keyring.stream import SealBroken, Sealer

__all__ = [
    "AccountKeys",
    "Keyring",
    "SealBroken",
    "SealedKeys",
    "Sealer",
    "add_master_key",
    "drop_old_master_keys",
    "master_from_file",
    "new_master",
    "replace_master_file",
]
