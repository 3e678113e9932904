"""The settings of the service: one frozen tree, read once from `INGESTD_…` variables and handed down piece by piece."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ingestd.domain.data_source import FILE_BYTES
from ingestd.domain.errors import Invalid, Problem
from ingestd.domain.plan import MIB, RESTRICTED_EVENTS, Limits

Port = Annotated[int, Field(ge=0, le=65535)]
"""Where to listen; 0 takes a free port."""

Url = Annotated[str, Field(pattern=r"^https?://\S+$"), AfterValidator(lambda url: url.rstrip("/"))]
"""What paths that begin with `/` are put behind."""

_PREFIX: Final = "INGESTD_"
_SECRETS_DIR: Final = f"{_PREFIX}SECRETS_DIR"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HttpSettings(_Part):
    """Where the HTTP API listens; with `certificate` and `private_key` it speaks TLS."""

    host: str = "127.0.0.1"
    port: Port = 8080
    certificate: Path | None = None
    private_key: Path | None = None
    public_url: Url | None = Field(None, description="What links in mails begin with; default: host and port.")
    trusted_proxies: tuple[str, ...] = Field((), description="Addresses whose X-Forwarded-For is believed.")
    requests_per_minute: int = Field(6000, ge=1, description="Requests of one API key, on each replica.")
    wrong_keys_per_minute: int = Field(60, ge=1, description="Wrong API keys from one address, on each replica.")


class SftpSettings(_Part):
    """Where the SFTP server listens and what it bears with; times in seconds."""

    host: str = "127.0.0.1"
    port: Port = 2222
    public_host: str | None = Field(None, description="What clients are told to connect to; default: `host`.")
    public_port: Port | None = Field(None, description="The same for the port.")
    host_key: Path | None = Field(
        None,
        description="Default: made in the data folder at the first start. For the API alone the public half will do.",
    )
    login_timeout: float = 20
    keepalive_interval: float = 30
    keepalive_count: int = 3
    idle_session_timeout: float = 1800
    idle_handle_timeout: float = 300
    longest_upload: float = 12 * 3600
    slowest_upload: float = Field(1024, description="Bytes a second of an upload on average, after its first minute.")
    failed_keys: int = 6
    penalty: float = Field(5, description="Seconds that a failed login adds to the penalty of its address.")
    penalty_refused_from: float = Field(15, description="Penalty from which on an address is not let in.")
    penalty_longest: float = 600
    exempt: tuple[IPvAnyNetwork, ...] = Field((), description="Networks without limits: a balancer's.")
    connections: int = Field(200, description="Connections at once.")
    connections_per_address: int = 20
    connections_per_key: int = 10
    strangers: int = Field(100, description="Connections at once that are not logged in; from a tenth on, by chance.")
    strangers_per_address: int = 10
    revocation_seconds: float = Field(5, description="How often sessions are looked at whose key was revoked.")
    sessions_per_connection: int = 10
    handles_per_session: int = 16
    manifest_grace: float = Field(0, ge=0, description="How long a manifest waits for a data file that comes later.")


class WorkerSettings(_Part):
    """The data plane of one replica."""

    processes: int = Field(2, ge=1, description="Data-plane processes; as many as cores is a good number.")
    concurrent_ingestions: int = Field(4, ge=1, description="Ingestions of different accounts side by side.")
    concurrent_fetches: int = Field(16, ge=1, description="Files fetched side by side from different servers.")
    fetch_attempts: int = Field(4, ge=1, description="Attempts of a run at a file whose server fails.")
    fetch_pause_seconds: float = Field(20, ge=0, description="Before the second attempt; each pause is thrice as long.")
    part_bytes: int = Field(24 * MIB, ge=1, description="Bytes of a file that make a part, unless it is very large.")
    attempts: int = Field(5, ge=1, description="Crashes after which a step is given up, an ingestion thrice that (P6).")


class QuotaSettings(_Part):
    """What one account may take up."""

    stored_bytes: int = Field(100 * 1024 * MIB, ge=0, description="Bytes of files that are kept.")
    open_ingestions: int = Field(10_000, ge=1, description="Ingestions that wait or run.")


class FetchSettings(_Part):
    """How much of other people's servers is borne with; times in seconds."""

    connect_seconds: float = Field(20, gt=0, description="To connect, and again to be let in.")
    silence_seconds: float = Field(60, gt=0, description="Without a byte.")
    listing_entries: int = Field(10_000, ge=1)
    listing_bytes: int = Field(8 * MIB, ge=1)
    listing_seconds: float = Field(60, gt=0)
    file_seconds: float = Field(12 * 3600, gt=0, description="For one file, with all attempts.")
    floor_bytes: int = Field(64 * 1024, ge=0, description="That `silence_seconds` must bring at least.")
    settle_seconds: float = Field(60, ge=0, description="A file younger than that is looked at twice, so far apart.")
    growing_seconds: float = Field(900, ge=0, description="How long the end of a growing file is waited for.")
    attempts: int = Field(5, ge=1, description="Connections for one file, when they break off.")
    retry_seconds: float = Field(5, ge=0, description="Between two of them.")


class SegmentSettings(_Part):
    """What a refresh of a segment may do unasked."""

    hold_above: float = Field(
        0.5, ge=0, le=1, description="Share of the members; a refresh that removes more waits to be confirmed."
    )


class DataSourceSettings(_Part):
    """What the files of data sources may be."""

    file_bytes: int = Field(FILE_BYTES, ge=1, description="The largest file, in bytes, inclusive (S51).")


class RetentionSettings(_Part):
    """How long things are kept."""

    file_days: float = Field(7, gt=0, description="Days that a received file is kept.")
    error_file_days: float = Field(30, gt=0, description="Days that an error file is kept after its ingestion ended.")
    held_days: float = Field(7, gt=0, description="Days that a refresh which is held waits to be confirmed.")
    history_days: float = Field(90, ge=7, description="Days that it is kept what was told, fetched and changed.")
    orphan_hours: float = Field(24, ge=1, description="Hours after which a blob that nothing names is removed.")


class MetricsSettings(_Part):
    """Where Prometheus and health checks of this process ask; nothing there needs a key."""

    host: str = "127.0.0.1"
    port: Port = 9464


class MailSettings(_Part):
    """The mail server (SMTP) that takes e-mail; without `host` mails are kept, and `ingestd messages` shows them."""

    host: str | None = None
    port: int = Field(587, description="The server's address and port must be public or in `egress_allow`.")
    security: Literal["starttls", "tls", "none"] = Field("starttls", description="`tls` from the first byte on.")
    authority: Path | None = Field(None, description="PEM file that vouches for the server; default: the system's.")
    username: str | None = None
    password: SecretStr | None = None
    sender: str = Field("ingestd <ingestd@localhost>", pattern=r"^[^\r\n]*[^\s@]+@[^\s@]+$")
    attachment_bytes: int = Field(5 * MIB, ge=0, description="The largest error file that is attached (D30).")


class Settings(BaseSettings):
    """All settings. `INGESTD_SFTP__PORT=2022` sets `sftp.port`; a variable that is empty sets nothing.

    A secret need not stand in the environment (T154): a file of the variable's name in the folder INGESTD_SECRETS_DIR
    has it, in small letters, such as `ingestd_mail__password`.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_nested_delimiter="__", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    data_dir: Path = Field(Path("data"), description="State of the embedded defaults; made with mode 0700.")
    database_url: SecretStr | None = Field(None, description="PostgreSQL 17 or later; default: an embedded one.")
    database_settings: dict[str, str] = Field({}, description="Settings of the embedded PostgreSQL.")
    blob_url: str | None = Field(None, description="Object storage by URL; default: a folder in the data folder.")
    master_key: SecretStr | None = Field(None, description="Sealed keysets' master key; default: made at first start.")
    egress_allow: tuple[str, ...] = Field((), description="`CIDR:port` that may be connected to though private.")
    restricted_events: tuple[str, ...] = Field(RESTRICTED_EVENTS, description="Names that no event may have (D36).")
    log_format: Literal["json", "console", "auto"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    http: HttpSettings = HttpSettings()
    sftp: SftpSettings = SftpSettings()
    worker: WorkerSettings = WorkerSettings()
    limits: Limits = Limits()
    quota: QuotaSettings = QuotaSettings()
    fetch: FetchSettings = FetchSettings()
    segments: SegmentSettings = SegmentSettings()
    data_sources: DataSourceSettings = DataSourceSettings()
    retention: RetentionSettings = RetentionSettings()
    mail: MailSettings = MailSettings()
    metrics: MetricsSettings = MetricsSettings()

    def __init__(self, **values: Any) -> None:
        """Read the settings, or raise Invalid, which names each that does not fit and never quotes it."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = tuple(Problem(_variable(each["loc"]), each["type"], each["msg"]) for each in error.errors())
            raise Invalid("Settings do not fit.", code="settings_invalid", problems=problems) from None
        except SettingsError as error:
            raise Invalid("Settings do not fit.", code="settings_invalid", problems=(_no_json(error),)) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then variables, then files of secrets; Invalid where their folder is none."""
        del settings_cls, dotenv_settings
        folder = os.environ.get(_SECRETS_DIR)
        if not folder:
            return (init_settings, env_settings)
        if not Path(folder).is_dir():
            problem = Problem(_SECRETS_DIR, "folder_missing", f"There is no folder {folder}.")
            raise Invalid("Settings do not fit.", code="settings_invalid", problems=(problem,))
        files = NestedSecretsSettingsSource(file_secret_settings, secrets_dir=folder, secrets_nested_delimiter="__")
        return (init_settings, env_settings, files)


def _no_json(error: SettingsError) -> Problem:
    """Which variable should be JSON; the library names no more than the first step of it."""
    text = getattr(error.__cause__, "doc", None)
    variable = next((name for name, value in os.environ.items() if value == text and name.startswith(_PREFIX)), _PREFIX)
    return Problem(variable, "json", 'Must be JSON: a list as ["one", "two"], settings as {"name": "value"}.')


def _variable(place: tuple[int | str, ...]) -> str:
    return _PREFIX + "__".join(str(step).upper() for step in place)
