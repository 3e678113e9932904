"""A check of schemathesis: what the document allows is not refused, but for what no schema can say.

It takes the place of `positive_data_acceptance`, which knows statuses only: a 422 for a cursor that nobody signed is
right, and one for a name of two words would be a document that says too little.
"""

from __future__ import annotations

import schemathesis

OF_WHAT_IS_THERE = {401, 403, 404, 409}
"""An id is of nothing, a name is taken, a state does not let it happen."""

NO_SCHEMA_SAYS = {
    "bad_request": "how JSON is read: no number of more than 64 bits, no NUL, 32 levels at most",
    "changed_meanwhile": "which ETag is that of today",
    "code": "which code was mailed",
    "condition": "which attributes the account has, and what can be asked of them",
    "connection_unknown": "which connections the account has",
    "cursor_invalid": "which cursor was signed, for this list and these filters",
    "file_unreadable": "what a file holds",
    "host_key_invalid": "which kinds of servers have a key to be known by",
    "idempotency_key_reused": "which key came before, with another request",
    "identifier": "which kinds of identifiers the account has",
    "manifest_incorrect": "what a manifest is like: /schemas/manifest.json has its form",
    "name": "which names are reserved, or blank in Unicode",
    "not_here": "what is for data sources only",
    "one_of": "of which fields one is to be given: to say it would spoil the types of generated clients",
    "order": "that a time comes before another",
    "past": "what time it is",
    "public_key_invalid": "what a public key is",
    "secret_invalid": "which secret goes with which kind of server",
    "too_many_requests": "how many requests are left",
    "url_invalid": "which hosts and ports may be posted to",
    "value_error": "what a validator of ours says: a text is printable, of two fields one is given",
    "webhook_unknown": "which webhooks the account has",
}
"""The codes of problems, and what it is that a caller cannot know from the document."""


@schemathesis.check
def what_is_allowed_is_not_refused(ctx, response, case):
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code < 400:
        return
    if response.status_code in OF_WHAT_IS_THERE or response.status_code >= 500:
        return  # what fails is for another check
    problem = response.json()
    codes = {problem["code"], *(each["code"] for each in problem["errors"])}
    assert codes & NO_SCHEMA_SAYS.keys(), f"{case.operation.label} refuses what the document allows: {problem}"
