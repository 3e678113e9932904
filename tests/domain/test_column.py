import pytest

from ingestd.domain.column import permitted


@pytest.mark.rule("S104", "D25")
@pytest.mark.parametrize(
    ("preferences", "channels"),
    [
        ({}, []),
        (
            {"MSG-sms": True, "MSG-email": True, "MSG-whatsapp": True, "MSG-push": True},
            ["push", "email", "sms", "whatsapp"],
        ),
        ({"MSG-sms": True, "MSG-email": True, "MSG-dndSMS": True, "MSG-dndEmail": False}, ["email"]),
        ({"MSG-email": True, "MSG-push": True, "MSG-dndEmail": True}, ["push"]),
        ({"MSG-sms": False, "MSG-dndSMS": False}, []),
    ],
)
def test_do_not_disturb_wins_over_a_permission(preferences, channels):
    assert permitted(preferences) == channels
