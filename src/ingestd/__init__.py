"""ingestd takes in the files a customer data platform lives from.

A *door* (SFTP push, the clock, an HTTP upload) turns the outside world into a *Submission*. `ingest.intake.submit`
writes one Ingestion row and enqueues it in one transaction. From there every file walks the same way: check, resolve,
apply, report. What the world must be told is a row written in the same transaction as the fact, and delivered later.
"""

__version__ = "0.1.0"
