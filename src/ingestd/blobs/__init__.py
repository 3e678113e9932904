"""Blobs: sealed, immutable files of the service, in a local folder or in object storage.

store = open_store("file:///var/lib/ingestd/blobs")      or s3://…, gs://…, az://…
with store.create("files/0198…", keys) as blob:
    blob.write(piece)
    stored = blob.commit()                               durable from here on; without it nothing is there
with store.open("files/0198…", keys) as file:
    file.readinto(buffer)
"""

from ingestd.blobs.backend import Stored
from ingestd.blobs.store import BlobInfo, BlobStore, BlobWriter, open_store

__all__ = ["BlobInfo", "BlobStore", "BlobWriter", "Stored", "open_store"]
