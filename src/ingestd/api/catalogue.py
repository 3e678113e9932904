"""The catalogue of problems: every code the API can answer with, its status, and what to do about it.

`GET /problems` shows it. A test holds it complete: a code that is raised anywhere and is missing here fails it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ingestd.domain.connection import MAX_CONNECTIONS
from ingestd.domain.notice import MAX_WEBHOOKS
from ingestd.domain.rejection import FILE_REASONS, REMEDIES, UNREADABLE


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of problem: its HTTP status, what it is called, why it happens and what the caller can do."""

    status: int
    title: str
    cause: str
    remedy: str


_TEST: Final = "Test the connection: it says step by step what works. Then ask who runs the server."
_OF_OTHERS: Final = {
    "dns_failed": Entry(
        502, "Host not found", "The host's address could not be found.", "Check the host's name, or try again later."
    ),
    "connect_failed": Entry(502, "No answer", "The connection's server does not answer at its port.", _TEST),
    "connection_lost": Entry(502, "Connection lost", "The server broke the connection off.", _TEST),
    "server_busy": Entry(
        502, "Server busy", "The server asks to try again later.", "Try again later; then ask who runs the server."
    ),
    "server_silent": Entry(502, "Server silent", "The server did not answer in time.", _TEST),
    "tls_refused": Entry(
        502,
        "TLS refused",
        "The server does not protect login and files by TLS; nothing was sent to it in the clear.",
        "Ask who runs the server to allow TLS on both connections (AUTH TLS, PROT P).",
    ),
    "tls_failed": Entry(502, "TLS failed", "No TLS could be agreed on with the server.", _TEST),
    "certificate_untrusted": Entry(
        502,
        "Certificate not trusted",
        "No public authority vouches for the server's certificate, or it is another host's, or too old.",
        "Ask for a valid certificate, or scan this one, compare its fingerprint and pin it.",
    ),
    "host_key_unknown": Entry(
        409,
        "Host key not pinned",
        "SFTP is spoken to servers only that are known by a pinned key; nothing secret was sent.",
        "Scan the connection's keys, compare the fingerprint with what its operator says, and pin it.",
    ),
    "host_key_changed": Entry(
        409,
        "Host key changed",
        "The server shows another key than the pinned ones: it was set up anew, or it is not that server. Nothing "
        "secret was sent, and the schedules that fetch there are paused.",
        "Ask who runs the server. If the new key is right, pin it, then resume the schedules.",
    ),
    "login_refused": Entry(
        502, "Login refused", "The server does not let us in with this user name and secret.", "Mend the connection."
    ),
    "path_not_found": Entry(
        404, "No such path", "The server has no such file or folder, or does not show it to us.", "Browse its folders."
    ),
    "permission_denied": Entry(
        502, "Permission denied", "We may not read this file or folder, or it leads out of the root folder.", _TEST
    ),
    "no_file": Entry(
        404,
        "No file",
        "No file in the folder has a name that fits and is not still being written.",
        "Put a file there whose name fits; browse the folder to see what is there.",
    ),
    "listing_limit": Entry(
        502, "Folder too large", "The listing of the folder does not end within bounds.", "Move old files elsewhere."
    ),
    "resume_refused": Entry(502, "No resuming", "The server cannot go on with a file.", "Let it send files anew."),
    "transfer_truncated": Entry(502, "Transfer cut short", "The server ended a file before its end.", _TEST),
    "file_changed": Entry(
        502, "File changed", "The file changed while it was fetched.", "Put files under another name, and rename them."
    ),
    "file_too_large": Entry(502, "File too large", "The file is larger than a file may be.", "Split the file."),
    "too_slow": Entry(502, "Too slow", "The server sends the file too slowly.", _TEST),
    "protocol_error": Entry(502, "Not understood", "The server does not keep to its protocol.", _TEST),
}

_SAME_LATER: Final = "Send the same request again later, with the same Idempotency-Key."

_OF_THE_API: Final = {
    "bad_request": Entry(
        400,
        "Bad request",
        "The request cannot be read: its body is no JSON, or its form is broken.",
        "Mend the request.",
    ),
    "unauthenticated": Entry(
        401,
        "Authentication needed",
        "No API key was sent, or one that is unknown, revoked or expired.",
        "Send a key in force: Authorization: Bearer isk_….",
    ),
    "forbidden": Entry(403, "Forbidden", "The caller may not do this.", "Ask an operator of the service."),
    "scope_missing": Entry(
        403,
        "Scope missing",
        "The API key does not have the scope that `detail` names.",
        "Use a key with this scope, or make one.",
    ),
    "feature_missing": Entry(
        403, "Not in the plan", "The account's plan does not include the feature.", "Ask the operator to switch it on."
    ),
    "egress_denied": Entry(
        403,
        "Address not allowed",
        "The host is, or resolves to, an address that the service does not connect to.",
        "Use a public address, or have the operator allow this one.",
    ),
    "not_found": Entry(
        404,
        "Not found",
        "There is no such thing, or it is not the account's.",
        "Check the id and which account the key belongs to.",
    ),
    "error_file_expired": Entry(
        410,
        "Error file expired",
        "The error file was kept for its time and is removed.",
        "Send the data file again.",
    ),
    "changes_expired": Entry(
        410,
        "Changes expired",
        "What the ingestion changed was kept for its time and is forgotten.",
        "Read a newer ingestion's, if there is one; who is in the data source now is listed at its members.",
    ),
    "method_not_allowed": Entry(
        405, "Method not allowed", "The path exists, but not for this method.", "Use one that the header Allow names."
    ),
    "request_timeout": Entry(408, "Too slow", "The request's body did not arrive in time.", "Send it again, faster."),
    "conflict": Entry(
        409, "Conflict", "The present state does not allow this.", "Read the resource again and decide anew."
    ),
    "idempotency_key_in_use": Entry(
        409, "Request in flight", "A request with this Idempotency-Key is being answered right now.", _SAME_LATER
    ),
    "import_key_exists": Entry(
        409,
        "Import key exists",
        "The account has an import key with this name or this public key.",
        "Choose another name, or revoke the other key first.",
    ),
    "connection_exists": Entry(
        409, "Connection exists", "The account has a connection of this name.", "Choose another name."
    ),
    "too_many_connections": Entry(
        409,
        "Too many connections",
        f"An account has at most {MAX_CONNECTIONS} connections.",
        "Change one of them, or delete one first.",
    ),
    "too_many_webhooks": Entry(
        409,
        "Too many webhooks",
        f"An account has at most {MAX_WEBHOOKS} webhooks.",
        "Change one of them, or delete one first.",
    ),
    "connection_used": Entry(
        409,
        "Connection used",
        "A schedule fetches its files there.",
        "Change or delete it first; GET /v1/schedules?connection_id=con_… lists such.",
    ),
    "schedule_missing": Entry(
        409,
        "Schedule missing",
        "The segment takes scheduled uploads and has no schedule.",
        "Give it one first: PUT /v1/segments/{id}/schedule.",
    ),
    "never_due": Entry(
        409,
        "Never due",
        "The segment takes scheduled uploads, and its schedule has no day left to run on.",
        "Change its validity first, PUT /v1/segments/{id}/schedule, or publish the upload type `manual`.",
    ),
    "schedule_paused": Entry(409, "Schedule paused", "The schedule is paused already.", "Resume it, or leave it."),
    "schedule_not_paused": Entry(409, "Not paused", "Only a paused schedule can be resumed.", "Nothing is to be done."),
    "not_scheduled": Entry(
        409,
        "Not scheduled",
        "The segment is a draft or inactive, or its upload type is manual.",
        "Activate it, or publish the upload type `scheduled`.",
    ),
    "run_open": Entry(
        409, "Run in progress", "A run of the same schedule has not ended yet.", "Wait for its end: GET /v1/runs/{id}."
    ),
    "webhook_disabled": Entry(
        409, "Webhook disabled", "Nothing is sent to a disabled webhook.", "Enable it first: PATCH with enabled true."
    ),
    "name_used": Entry(
        409, "Name used", "A manifest of this name was used before, or is a draft (D18).", "Choose another name."
    ),
    "account_busy": Entry(
        409, "Account busy", "Ingestions of the account wait or run.", "Cancel them, or wait until they have ended."
    ),
    "account_in_use": Entry(
        409,
        "Account in use",
        "The request acts for this account.",
        "Use another account's key.",
    ),
    "file_taken": Entry(409, "File taken", "The file belongs to another manifest already.", "Upload the file again."),
    "not_ended": Entry(409, "Not ended", "The ingestion is still going on.", "Wait until it has ended, or cancel it."),
    "nothing_to_retry": Entry(
        409, "Nothing to retry", "The ingestion has no rows that could be tried again.", "Upload a file anew."
    ),
    "too_late": Entry(
        409, "Too late", "Rows are being applied, or the ingestion has ended.", "Let it end and read what came of it."
    ),
    "too_many_open_ingestions": Entry(
        409,
        "Too many open ingestions",
        "The account's quota of open ingestions is used up.",
        "Wait until some have ended.",
    ),
    "quota_exceeded": Entry(
        409,
        "Quota exceeded",
        "The account's files would take more than its quota.",
        "Remove files, or wait for their end.",
    ),
    "attribute_exists": Entry(
        409, "Attribute exists", "Another attribute has this name, here, in segments or as a macro.", "Choose another."
    ),
    "attribute_used": Entry(
        409, "Attribute used", "A mapping names it, a segment's condition is over it, or it is personal.", "Keep it."
    ),
    "data_source_exists": Entry(
        409, "Data source exists", "The account has a data source of this name.", "Choose another name."
    ),
    "data_source_used": Entry(
        409,
        "Data source used",
        "Files were uploaded for the data source, so that values of people stem from it.",
        "Keep it; a replace with a file of a header alone takes everybody out of it.",
    ),
    "mapping_missing": Entry(
        422, "No mapping", "The data source has no mapping yet.", "Write one: PUT /v1/data-sources/{id}/mapping."
    ),
    "recipient_exists": Entry(
        409, "Recipient exists", "The address is registered already.", "Change the recipient that has it."
    ),
    "manifest_submitted": Entry(
        409, "Manifest submitted", "Only a draft can be changed, deleted or submitted.", "Write a new manifest."
    ),
    "segment_exists": Entry(
        409, "Segment exists", "The account has a segment of this name already.", "Choose another name."
    ),
    "partition_exists": Entry(
        409, "Partition exists", "The segment has a partition of this name already.", "Choose another name."
    ),
    "segment_in_use": Entry(
        409,
        "Segment in use",
        "The segment is active or in progress, or has members.",
        "Put edits into its draft, or deactivate it first.",
    ),
    "segment_inactive": Entry(
        409, "Segment not in use", "The segment is a draft or inactive; it takes no files.", "Activate it first."
    ),
    "segment_filtered": Entry(
        409,
        "Filter segment",
        "A condition over attributes says who is in the segment, so it takes no files.",
        "Upload the file for a segment with the method upload.",
    ),
    "segment_unfiltered": Entry(
        409,
        "No filter segment",
        "Files say who is in the segment, so it has no condition.",
        "Upload a file for it, or make a filter segment with POST /v1/filters.",
    ),
    "not_held": Entry(409, "Not held", "Only an ingestion that is held can be confirmed.", "Read how it stands."),
    "newer_file": Entry(
        409,
        "Newer file",
        "A newer file for the same segment or data source waits or is processed; in the end it takes this one's place.",
        "Wait for its end. If this file is to be in force nevertheless, cancel the newer one or upload this one again.",
    ),
    "gone": Entry(410, "Gone", "It was there, but its time is over.", "Nothing brings it back; make it anew."),
    "file_unreadable": Entry(
        422,
        UNREADABLE,
        "The file does not have the format of what it is for.",
        "Upload it again: as TSV for a data source, as CSV with a manifest or for a segment.",
    ),
    "file_expired": Entry(410, "File expired", "The file is no longer kept.", "Upload the file again."),
    "changed_meanwhile": Entry(
        412,
        "Changed in the meantime",
        "If-Match names another state than the present one: somebody changed the resource since it was read.",
        "Read it again, apply the change to what it is now, and send the new ETag.",
    ),
    "too_large": Entry(413, "Too large", "The body is larger than this route takes.", "Send less; see GET /v1/limits."),
    "unsupported_media_type": Entry(
        415,
        "Unsupported media type",
        "The body's Content-Type is not one this route takes, or it has a Content-Encoding.",
        "Send plain JSON as application/json, unless the route says otherwise.",
    ),
    "range_not_satisfiable": Entry(
        416, "No such range", "The range that was asked for lies behind the end.", "Ask for one within the size."
    ),
    "invalid": Entry(
        422,
        "Invalid request",
        "The request is well formed but breaks a rule; `errors` says which and where.",
        "Mend what `errors` points at.",
    ),
    "idempotency_key_reused": Entry(
        422,
        "Idempotency-Key reused",
        "This Idempotency-Key came with another request in the last 24 hours.",
        "Use a new key for each new request.",
    ),
    "cursor_invalid": Entry(
        422,
        "Cursor not valid",
        "The cursor is not one of this list, asked in the same way by the same account.",
        "Begin again without a cursor, and change neither filters nor sort in between.",
    ),
    "file_name_invalid": Entry(
        422,
        "File name refused",
        "The name is none that a file can have; `errors` says why.",
        "Use letters, digits, spaces and _ . ( ) - , beginning with a letter, a digit or _.",
    ),
    "public_key_invalid": Entry(
        422,
        "Public key refused",
        "The text is no public key that may open the SFTP door; `detail` says why.",
        "Send one OpenSSH public key line, best of an Ed25519 key.",
    ),
    "path_invalid": Entry(
        422,
        "Path refused",
        "The path is none below the root folder of a connection; `detail` says why.",
        "Write it from the root folder on, with single slashes.",
    ),
    "host_key_invalid": Entry(
        422,
        "Host key refused",
        "The text is no key or certificate by which such a server is known.",
        "Send the line that the scan of the connection shows.",
    ),
    "secret_invalid": Entry(
        422,
        "Secret refused",
        "A connection needs a password, or for SFTP a private key in its place; `errors` says what does not fit.",
        "Send it, to another server again; of a private key the whole file, without a passphrase.",
    ),
    "url_invalid": Entry(
        422,
        "Address refused",
        "The URL is none that the service posts to; `detail` says why.",
        "Use a plain https URL.",
    ),
    "condition_incorrect": Entry(
        422, "Condition incorrect", "The condition does not fit the attributes.", "Mend what `errors` says."
    ),
    "mapping_incorrect": Entry(
        422, "Mapping incorrect", "The mapping breaks rules; `errors` lists them.", "Mend what `errors` points at."
    ),
    "manifest_incorrect": Entry(
        422, "Manifest incorrect", "The manifest breaks rules; `errors` lists them.", "Mend the manifest."
    ),
    "too_many_requests": Entry(
        429,
        "Too many requests",
        "The key, or for unknown keys the address, has used up its requests of this minute.",
        "Wait as many seconds as Retry-After says; the header RateLimit shows what is left.",
    ),
    "too_many_exports": Entry(
        429,
        "Too many exports",
        "Another export of the account is still being sent, or as many of others as there can be at once.",
        "Read one export to its end before the next; wait as many seconds as Retry-After says.",
    ),
    "headers_too_large": Entry(431, "Headers too large", "The request's headers are too large.", "Send fewer."),
    "internal": Entry(
        500,
        "Internal error",
        "The service failed; its log has the reason under the request's id.",
        "Send the request again; if it fails again, tell the operator the request's id.",
    ),
    "overloaded": Entry(
        503, "Overloaded", "The service has as many requests as it can take.", "Wait a second and send it again."
    ),
    "unavailable": Entry(
        503, "Unavailable", "Something the service depends on does not answer.", "Send the request again later."
    ),
    "storage_failed": Entry(
        503, "Storage failed", "The service could not write to its storage.", "Send the request again later."
    ),
    "storage_full": Entry(503, "Storage full", "The service's storage is full.", "Tell the operator."),
    "loop_detected": Entry(
        508,
        "Loop detected",
        "A webhook of this service was posted to this service.",
        "Register the address of your own receiver.",
    ),
}

CATALOGUE: Final = (
    _OF_THE_API
    | _OF_OTHERS
    | {
        code: Entry(422, reason.sentence, f"The file breaks the rule {reason.rule}.", REMEDIES[code])
        for code, reason in FILE_REASONS.items()
        if code not in _OF_THE_API
    }
)
