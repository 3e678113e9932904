"""Clients of other people's FTP and SFTP servers, which are not trusted: every answer is bounded and checked.

`visit.visit` opens a server of either kind; what it gives is described in `remote`.
"""
