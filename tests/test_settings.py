"""Settings come from variables, and secrets from files too."""

import pytest

from ingestd.domain.errors import Invalid
from ingestd.settings import Settings

SECRET = "postgresql://ingestd:hidden@database/ingestd"


@pytest.mark.threat("T154")
def test_a_secret_may_stand_in_a_file_and_is_never_shown(tmp_path, monkeypatch):
    (tmp_path / "ingestd_database_url").write_text(SECRET + "\n")
    (tmp_path / "ingestd_mail__password").write_text("hidden too\n")
    monkeypatch.setenv("INGESTD_SECRETS_DIR", str(tmp_path))
    settings = Settings()
    assert settings.database_url.get_secret_value() == SECRET
    assert settings.mail.password.get_secret_value() == "hidden too"
    assert "hidden" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.rule("D36")
def test_the_names_that_no_event_may_have_are_a_setting(monkeypatch):
    assert "App Launched" in Settings().restricted_events
    monkeypatch.setenv("INGESTD_RESTRICTED_EVENTS", '["Mine"]')
    assert Settings().restricted_events == ("Mine",)


def test_a_variable_goes_before_a_file(tmp_path, monkeypatch):
    (tmp_path / "ingestd_log_level").write_text("error")
    monkeypatch.setenv("INGESTD_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("INGESTD_LOG_LEVEL", "warning")
    monkeypatch.setenv("INGESTD_SFTP__PORT", "2022")
    assert (Settings().log_level, Settings().sftp.port) == ("warning", 2022)


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("INGESTD_EGRESS_ALLOW", "10.1.0.0/16:443", "Must be JSON"),
        ("INGESTD_SFTP__EXEMPT", "10.1.0.0/16", "Must be JSON"),
        ("INGESTD_HTTP__PORT", "70000", "less than or equal to 65535"),
        ("INGESTD_HTTP__PUBLIC_URL", "ingest.example.org", "https?://"),
        ("INGESTD_SECRETS_DIR", "/dev/null", "There is no folder"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(monkeypatch, variable, text, said):
    monkeypatch.setenv(variable, text)
    with pytest.raises(Invalid) as refused:
        Settings()
    [problem] = refused.value.problems
    assert problem.pointer == variable
    assert said in problem.detail


def test_links_in_mails_have_one_slash_after_the_address(monkeypatch):
    monkeypatch.setenv("INGESTD_HTTP__PUBLIC_URL", "https://ingest.example.org/")
    assert Settings().http.public_url == "https://ingest.example.org"


def test_a_variable_that_is_empty_sets_nothing(monkeypatch):
    for variable in ("INGESTD_MAIL__HOST", "INGESTD_DATABASE_URL", "INGESTD_HTTP__PORT"):
        monkeypatch.setenv(variable, "")
    settings = Settings()
    assert (settings.mail.host, settings.database_url, settings.http.port) == (None, None, 8080)
