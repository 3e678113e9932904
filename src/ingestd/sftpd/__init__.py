"""The SFTP door: accounts push files and manifests here (S79 to S88).

server.py     listening, and who may come in
host_key.py   how clients know this server again
session.py    what of the SFTP protocol is spoken
inbox.py      the flat folder that clients see
upload.py     one file on its way in
"""
