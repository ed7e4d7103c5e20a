"""Every setting, from OOMSTREAM_ environment variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from oomstream.schemas.durations import parse_duration_us
from oomstream.schemas.errors import InvalidEvent, InvalidSetting
from oomstream.schemas.types import us_from_text

PREFIX = "OOMSTREAM_"
_FILE = "_FILE"

METADATA_MAX_AGE_US = 5_000_000
"""Default of `metadata_max_age_us`."""

READERS_NEED = 1.2
"""For so many times the age that their metadata may have, readers may still use the copy before the newest."""


def _duration_us(value: Any) -> Any:
    return parse_duration_us(value) if isinstance(value, str) else value


def _time_us(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return us_from_text(value if len(value) > 10 else f"{value}T00:00:00+00:00")
    except InvalidEvent as exc:
        raise ValueError(f"{value!r} {exc}") from exc


def _start(value: str) -> str:
    if value not in {"earliest", "latest"}:
        try:
            _time_us(value)
        except ValueError:
            raise ValueError(f"{value!r} is not earliest, latest or RFC 3339 text with an offset") from None
    return value


DurationUs = Annotated[int, BeforeValidator(_duration_us), Field(ge=0)]
TimeUs = Annotated[int, BeforeValidator(_time_us)]


class Settings(BaseSettings):
    """Settings of every process; each is the environment variable OOMSTREAM_ + its name in capitals.

    Durations are written as ``5m``, times as RFC 3339. docs/operations.md lists them all.

    A setting that holds a password need not stand in the environment: for every OOMSTREAM_X, OOMSTREAM_X_FILE names a
    file whose content, without white space around it, is the value (a Docker or Kubernetes secret; the whole URL).
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    data_dir: Path = Field(
        Path(".oomstream"), description="Folder of the embedded stores and of the dev broker's address."
    )
    broker_url: str | None = Field(
        None, description="kafka://host:9092[,host:9092] or the embedded://… that `oomstream broker` prints."
    )
    kafka_tls: bool | None = Field(
        None, description="true: TLS to Kafka, certificate and host name verified; must be said where there is a user."
    )
    kafka_ca: str | None = Field(None, repr=False, description="PEM text of the authorities to trust.")
    kafka_certificate: str | None = Field(None, repr=False, description="PEM text of the client's certificate.")
    kafka_key: SecretStr | None = Field(None, description="PEM text of the client's private key.")
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="How the user logs in."
    )
    kafka_user: str | None = Field(None, description="SASL user.")
    kafka_password: SecretStr | None = Field(None, description="SASL password.")
    # Not shown in the text form: they may hold passwords.
    online_url: str | None = Field(None, repr=False, description="Online store; default: SQLite in the data folder.")
    history_url: str | None = Field(
        None, repr=False, description="History and metadata; default: SQLite in the data folder."
    )
    schema_registry_url: str | None = Field(
        None, repr=False, description="Schema Registry, for Confluent-framed events."
    )
    consumer_group: str = Field("oomstream", description="Kafka consumer group of the workers.")
    session_timeout_us: DurationUs = Field(
        10_000_000,
        alias="OOMSTREAM_SESSION_TIMEOUT",
        description="After how long a silent worker loses its partitions (a real broker's least is 6s).",
    )
    start: Annotated[str, AfterValidator(_start)] = Field(
        "earliest", description="Where a source never seen begins: earliest, latest, or a time."
    )
    on_lost_range: Literal["stop", "skip"] = Field(
        "stop", description="When the log no longer holds the position: stop, or skip what is lost."
    )
    batch_rows: int = Field(2_000, ge=1, le=20_000, description="Most records in one batch of one partition.")
    batch_bytes: int = Field(4 << 20, ge=1 << 20, description="Most bytes in one batch of one partition.")
    max_future_us: DurationUs = Field(
        300_000_000,
        alias="OOMSTREAM_MAX_FUTURE",
        description="How far an event time may lie after the Kafka timestamp.",
    )
    min_event_time_us: TimeUs = Field(
        946_684_800_000_000, alias="OOMSTREAM_MIN_EVENT_TIME", description="The oldest event time that is accepted."
    )
    dlq_max_consecutive: int = Field(
        1_000, ge=0, description="Dead letters in a row, per partition, that stop the worker; 0 = no limit."
    )
    dlq_max_ratio: float = Field(
        0.5, ge=0, le=1, description="Share of dead letters in the last records that stops the worker; 1 = no limit."
    )
    dlq_window: int = Field(2_000, ge=10, description="Over how many records, per partition, the share is taken.")
    outage_budget_us: DurationUs = Field(
        900_000_000,
        alias="OOMSTREAM_OUTAGE_BUDGET",
        description="How long a store may be down before the worker exits.",
    )
    call_timeout_us: DurationUs = Field(
        30_000_000, gt=0, alias="OOMSTREAM_CALL_TIMEOUT", description="Deadline of one call to a store or a broker."
    )
    online_max_age_us: DurationUs = Field(
        0,
        le=10_000_000,
        alias="OOMSTREAM_ONLINE_MAX_AGE",
        description="How old what online reads answer may be, where that saves a round trip (TiKV); 0 = not at all.",
    )
    tikv_driver: Literal["auto", "native", "tikv-client"] = Field(
        "auto", description="Client of TiKV: auto = native where the package oomstream-tikv is installed."
    )

    serve_port: int = Field(6566, ge=0, le=65_535, description="HTTP port of `oomstream serve`; 0 = a free one.")
    serve_grpc_port: int = Field(50_051, ge=0, le=65_535, description="Its gRPC port; 0 = a free one.")
    serve_files: Path | None = Field(
        None,
        description="The only folder whose files its clients may name; default: the working folder, on loopback only.",
    )
    serve_max_request_bytes: int = Field(
        4 << 20, ge=1 << 10, le=1 << 30, description="Longest request, or message of a stream, that it takes."
    )
    metadata_max_age_us: DurationUs = Field(
        METADATA_MAX_AGE_US,
        ge=500_000,
        alias="OOMSTREAM_METADATA_MAX_AGE",
        description="How long after a `sync` readers of a batch group may still see the revision before it.",
    )
    serve_token: SecretStr | None = Field(None, description="Bearer token that clients of `oomstream serve` bring.")
    serve_certificate: str | None = Field(None, description="PEM text of the certificate of `oomstream serve`.")
    serve_key: SecretStr | None = Field(None, description="PEM text of that certificate's private key.")

    crash_at: str | None = Field(
        None,
        description="For tests: die at this crash point, POINT or POINT:N for the N-th time; with :freeze, stop there.",
    )

    @property
    def online(self) -> str:
        """URL of the online store, the default filled in."""
        return self.online_url or f"sqlite:///{self.data_dir / 'online.db'}"

    @property
    def history(self) -> str:
        """URL of the history database, the default filled in."""
        return self.history_url or f"sqlite:///{self.data_dir / 'history.db'}"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment.

    Args:
        **overrides: Settings by name that win over the environment; None means not given.

    Raises:
        InvalidSetting: A value is wrong, a ``_FILE`` cannot be read, or an OOMSTREAM_ variable is unknown; names the
            variable.
    """
    # By variable, the name that pydantic-settings takes the value under.
    known = {
        (field.alias or PREFIX + name.upper()): field.alias or name for name, field in Settings.model_fields.items()
    }
    ours = sorted(name for name in os.environ if name.upper().startswith(PREFIX))
    unknown = [name for name in ours if name not in known and name.removesuffix(_FILE) not in known]
    if unknown:
        raise InvalidSetting(f"unknown setting {', '.join(unknown)} in the environment (docs/operations.md lists all)")
    values: dict[str, Any] = {known[name.removesuffix(_FILE)]: _content(name) for name in ours if name not in known}
    for name, value in overrides.items():
        if value is not None:
            values[Settings.model_fields[name].alias or name] = value
    try:
        return Settings(**values)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = str(first["loc"][0]) if first["loc"] else "setting"
        variable = where if where.startswith(PREFIX) else PREFIX + where.upper()
        # The error itself shows the value, which may be a URL with a password.
        raise InvalidSetting(f"setting {variable}: {_sentence(first['msg'])}") from None


def _content(variable: str) -> str:
    """Content of the file that a ``_FILE`` variable names."""
    if variable.removesuffix(_FILE) in os.environ:
        raise InvalidSetting(f"settings {variable.removesuffix(_FILE)} and {variable} are both set: keep one of them")
    path = Path(os.environ[variable])
    try:
        return path.read_text().strip()
    except UnicodeDecodeError:
        raise InvalidSetting(f"setting {variable}: {path} is not UTF-8 text") from None
    except OSError as exc:
        raise InvalidSetting(f"setting {variable}: {path} cannot be read ({exc.strerror})") from exc


def _sentence(message: str) -> str:
    """Pydantic's message without its own prefix, beginning with a small letter."""
    text = message.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
