"""The host key: how clients know that this server is the one they spoke to before (T41)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import asyncssh

from ingestd.domain.errors import Unavailable
from ingestd.keyring import private_file
from ingestd.settings import SftpSettings

HOST_KEY_FILE: Final = "sftp_host_key"


def host_key_file(settings: SftpSettings, folder: Path) -> Path:
    """Where the host key is: the settings say it, or it is in the data folder."""
    return settings.host_key or folder / HOST_KEY_FILE


def host_key(path: Path, *, make: bool = False) -> asyncssh.SSHKey:
    """The key in the file; where there is none and it may be made, a new Ed25519 key.

    Processes that start at once agree on one key. Forbidden "key_file_open": another user can read the file.
    Unavailable "host_key_unusable": we cannot read or make it, it is not there, or it holds no key.
    """
    try:
        if make and not path.exists():
            private_file.create(path, asyncssh.generate_private_key("ssh-ed25519").export_private_key())
        return asyncssh.import_private_key(private_file.read(path))
    except FileNotFoundError:
        raise Unavailable(
            f"There is no SFTP host key {path}, which INGESTD_SFTP__HOST_KEY names, and no other is made for it: "
            f"clients would take us for somebody else. For a new server: ssh-keygen -t ed25519 -N '' -f '{path}'",
            code="host_key_unusable",
        ) from None
    except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
        raise Unavailable(
            f"{path} cannot be used as the SFTP host key. It must be a file of our user with an OpenSSH private key "
            "that has no passphrase; see INGESTD_SFTP__HOST_KEY.",
            code="host_key_unusable",
        ) from None


def fingerprint_of(path: Path) -> str | None:
    """The fingerprint of the host key in a file, of either half, for telling it to clients; None without a file."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return asyncssh.import_public_key(text).get_fingerprint()
    except asyncssh.KeyImportError:
        return host_key(path).get_fingerprint()
