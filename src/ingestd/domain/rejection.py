"""The catalogue of reasons: why a row is rejected and why a file is refused.

Each reason has a stable code, a sentence and the rule it comes from. The sentences of the specification's documents are
kept to the letter, typos too (D38). The order of `ROW_REASONS` is the rule
order in which the errors of a row are joined (D34).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

IDENTIFIER_SENTENCE: Final = (
    "Atleast one of identity / fbId / gpId / objectId is mandatory under 1024 chars to identify the user"
)


UNMENDED: Final = "unmended"


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason: `sentence` may hold `{column}` (a header), `{line}`, `{found}` and `{expected}` (numbers)."""

    code: str
    sentence: str
    rule: str

    @property
    def general(self) -> str:
        """The sentence of many rows at once: without the column, and with an ellipsis for every number."""
        return re.sub(r"\{\w+\}", "…", self.sentence.removeprefix("{column}: "))


def _catalogue(*reasons: Reason) -> dict[str, Reason]:
    return {reason.code: reason for reason in reasons}


ROW_REASONS: Final = _catalogue(
    Reason("line_too_long", "The line is longer than {expected} bytes", "D47"),
    Reason("nul_byte", "The record holds a NUL byte", "D43"),
    Reason("encoding_invalid", "The record is not valid UTF-8", "D43"),
    Reason("quote_open", "The quote opened on line {line} is not closed", "D44"),
    Reason("quote_misplaced", "A quote stands inside an unquoted field, or text follows a closing quote", "D44"),
    Reason("field_count", "The record has {found} fields, the header has {expected}", "D44"),
    Reason("cell_too_long", "A cell is longer than {expected} bytes", "D47"),
    Reason(
        UNMENDED, "The record was broken before: mend it, or empty its last cell if it is right as it stands", "D44"
    ),
    Reason("identifier_missing", IDENTIFIER_SENTENCE, "S115"),
    Reason("identifier_blank", "At least one identifier is mandatory, under 1024 characters", "S55"),
    Reason("identifier_characters", "{column}: the identifier holds a control or invisible character", "T117"),
    Reason("identifiers_of_two_people", "identifiers belong to two people", "D54"),
    Reason("ts_invalid", "{column}: not a time in epoch seconds", "S93"),
    Reason("ts_milliseconds", "{column}: looks like milliseconds, but ts is in epoch seconds", "D20"),
    Reason("ts_out_of_range", "{column}: before 2000-01-01 or more than a day ahead", "D48"),
    Reason("event_name_missing", "Event name is mandatory", "S124"),
    Reason("event_name_too_long", "The event name is longer than 512 characters", "D36"),
    Reason("event_name_restricted", "Event name belongs to restricted system events", "S125"),
    Reason("too_many_event_properties", "Cannot have more than 100 event properties", "S126"),
    Reason("operation_on_event", "{column}: an event's property takes no operation", "D23"),
    Reason("padded", "{column}: a space stands before or after the value", "S53"),
    Reason("operation_invalid", "Profile operation must be one of $add, $set, $remove, $delete", "S127"),
    Reason("set_blank", "{column}: $set needs a value", "D24"),
    Reason("integer_invalid", "{column}: not an INTEGER of 32 bits (LONG has 64)", "S113"),
    Reason("long_invalid", "{column}: not a LONG (64-bit whole number)", "S113"),
    Reason("float_invalid", "{column}: not a FLOAT", "S113"),
    Reason("boolean_invalid", "{column}: not a BOOLEAN (true, false, 1, 0, y, n, yes, no)", "D22"),
    Reason("date_invalid", "{column}: not a date ($D_ and epoch seconds)", "S94"),
    Reason("date_in_number", "{column}: a $D_ date in a column of numbers or booleans", "D21"),
    Reason("moment_invalid", "{column}: not a date (ISO 8601 such as 2026-01-31, or epoch seconds)", "D14"),
    Reason("phone_invalid", "Phone number is not valid", "D5"),
    Reason("phone_with_plus", "{column}: write the number with its country code and without +", "S24"),
    Reason("email_invalid", "E-mail address is not valid", "D5"),
    Reason("partition_invalid", "{column}: no partition: blank, over 120 characters, or a control character", "S25"),
    Reason("internal", "[Internal error] Error while importing data", "S123"),
)

NO_DATA_FILE: Final = "No data file found"
UNREADABLE: Final = "File couldn't be read"
INFRASTRUCTURE: Final = "Internal infra error"
MANIFEST_INCORRECT: Final = "Incorrect details in manifest file"

FILE_REASONS: Final = _catalogue(
    Reason("no_data_file", NO_DATA_FILE, "S119"),
    Reason("file_unreadable", UNREADABLE, "S120"),
    Reason("infrastructure", INFRASTRUCTURE, "S121"),
    Reason("manifest_incorrect", MANIFEST_INCORRECT, "S122"),
    Reason("header_incorrect", "The header does not fit the data source", "S54"),
    Reason("identifier_missing", IDENTIFIER_SENTENCE, "D56"),
    Reason("event_name_missing", "Event name is mandatory", "D56"),
    Reason("too_many_partitions", "The segment would have too many partitions", "S41"),
    Reason("nothing_applied", "Not one row of the file could be applied", "D30"),
)

REMEDIES: Final = {
    "no_data_file": "Upload the data file again and create a new manifest file for it.",
    "file_unreadable": "Upload the file again with the correct format: CSV for data files and JSON for the manifest.",
    "infrastructure": "Upload the file again followed by a new manifest file.",
    "manifest_incorrect": "Check the manifest file for incorrect details.",
    "header_incorrect": "Mend the first line of the file, or the mapping of the data source.",
    "identifier_missing": "Check that a minimum of one identifier column is present.",
    "event_name_missing": "Add an event name column, or map one to evtName.",
    "too_many_partitions": "Remove partitions that are no longer used; where the history is full, fill a new segment.",
    "nothing_applied": "Download the error file, mend the rows and upload it with a new manifest.",
}
"""What to do about a file that came with a manifest."""

REMEDIES_OF_SOURCE: Final = REMEDIES | {
    "file_unreadable": "Upload the file again with the correct format: TSV, its name ending in .tsv.",
    "infrastructure": "Upload the file again.",
    "nothing_applied": "Download the error file, which is CSV, mend the rows, and upload them as TSV.",
}
"""The same for the file of a data source."""

REMEDIES_OF_SEGMENT: Final = REMEDIES | {
    "file_unreadable": "Upload the file again with the correct format: CSV, an identifier in the first column and the "
    "partition in the second.",
    "infrastructure": "Upload the file again.",
    "nothing_applied": "Download the error file, mend the rows and upload it for the segment.",
}
"""The same for the file of a segment."""
