"""config.toml -> one frozen tree of settings. Every default stands here, once.

Unknown keys are errors. What is written in the contract but not built yet is refused with a line that says so.
"""

import re
import tomllib
from datetime import tzinfo
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from node.errors import Misuse

DEFAULT_FILE = Path("config.toml")
UNGUARDED = (
    '[scope] says "model", but neither the model that runs nor the one that comes with Hilum knows what it was made '
    'for: it counts as "skip"'
)

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def _bytes(value: object) -> object:
    """2000000000, "2 GB" and "2GB" are the same number of bytes."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    if not match or match[2].upper() not in _UNITS:
        raise ValueError('a size is a number of bytes or like "2 GB", "256 MiB"')
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _ae_title(value: str) -> str:
    """An AE title (PS3.5 6.2, VR AE): 1 to 16 characters, no backslash, no control characters, outer spaces lost."""
    value = value.strip(" ")
    if not 1 <= len(value) <= 16 or not value.isascii() or not value.isprintable() or "\\" in value:
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return value


def _is_local(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _is_loopback(url: str) -> bool:
    return _is_local(urlsplit(url).hostname or "")


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", value):
        raise ValueError("a name has 1 to 32 letters, digits, '.', '_' or '-'")
    return value


Size = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]
AETitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=0, le=65535)]
Uid = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)+$", max_length=64)]
Name = Annotated[str, AfterValidator(_name)]
Unknown = Literal["skip", "analyze", "model"]
DicomResult = Literal["sr", "text-sr", "sc", "gsps", "ko", "pdf", "not-analyzed"]
TextResult = Literal["json", "fhir"]
SrClass = Literal["comprehensive3d", "comprehensive", "enhanced"]


def _web_address(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", value):
        raise ValueError(
            'write an address like "https://pacs.hospital.example/dicom-web", without user and password'
        )
    return value.rstrip("/")


WebAddress = Annotated[str, AfterValidator(_web_address)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Node(_Section):
    ae_title: AETitle = "HILUM"
    data_dir: Path = Path("hilum-data")


class Peer(_Section):
    """Who may associate: an AE title at a host, which is an address, a network ("10.1.0.0/16") or a name."""

    ae_title: AETitle
    host: str
    # where it listens itself: for reports of storage commitment that it asked for
    port: Annotated[int, Field(ge=1, le=65535)] | None = None


class ReceiveTls(_Section):
    """TLS at our port. All files are PEM."""

    certificate: Path
    # None: it lies in `certificate`
    key: Path | None = None
    # who must have signed the certificate that a peer shows; None: a peer needs none
    ca_file: Path | None = None


class Receive(_Section):
    host: str = "127.0.0.1"
    port: Port = 11112
    engine: Literal["hilum", "pynetdicom"] = "hilum"
    max_associations: Annotated[int, Field(ge=1, le=10_000)] = 250
    # 128 KiB: DCMTK's largest; a quarter of the CPU a megabyte of the usual 16 KiB
    max_pdu_bytes: Annotated[int, BeforeValidator(_bytes), Field(ge=4096, le=2**24)] = 131_072
    max_object_bytes: Size = 4 * 10**9
    max_inflated_bytes: Size = 256 * 10**6
    min_free_bytes: Size = 2 * 10**9
    on_conflict: Literal["refuse", "analyze"] = "refuse"
    other_storage: Literal["accept", "refuse"] = "accept"
    extra_classes: tuple[Uid, ...] = ()
    insecure: bool = False
    peers: tuple[Peer, ...] = ()
    # None: without TLS
    tls: ReceiveTls | None = None

    @property
    def is_loopback(self) -> bool:
        return _is_local(self.host)


class Analyze(_Section):
    workers: Annotated[int, Field(ge=0, le=64)] = 1
    batch_size: Annotated[int, Field(ge=1, le=256)] = 8
    max_wait_seconds: Annotated[float, Field(ge=0, le=60)] = 0
    # None: what was activated, else the model that comes with Hilum (`node.active`)
    model: Path | None = None
    # a model that reads what the first has read, is logged, and sends nothing
    shadow: Path | None = None
    runtime: Literal["auto", "tensorflow", "openvino"] = "auto"


class DimseDestination(_Section):
    name: Name
    kind: Literal["dimse"] = "dimse"
    ae_title: AETitle
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    # how many at once while there is work; Orthanc serves four (DicomThreadsCount), whoever calls
    associations: Annotated[int, Field(ge=1, le=8)] = 1
    sr_class: SrClass = "comprehensive3d"
    # storage commitment (PS3.4 Annex J) is asked for, and a result is sent again of which nothing is heard so long
    commitment: bool = False
    commitment_seconds: Annotated[float, Field(ge=1, le=604_800)] = 600
    tls: bool = False
    # PEM: who may sign the destination's certificate; None: whom the system trusts
    ca_file: Path | None = None
    # PEM: what we show to a destination that asks for it; without a key of its own it holds that too
    certificate: Path | None = None
    key: Path | None = None
    results: tuple[DicomResult, ...] = ("sr", "sc")

    @model_validator(mode="after")
    def _in_the_clear_only_where_nothing_else_is_said(self) -> Self:
        given = next((key for key in ("ca_file", "certificate", "key") if getattr(self, key)), "")
        if given and not self.tls:
            raise ValueError(f"{given} is given, but nothing is encrypted without tls = true")
        if self.key and not self.certificate:
            raise ValueError("key belongs to a certificate: name that too")
        return self


class FolderDestination(_Section):
    name: Name
    kind: Literal["folder"]
    path: Path
    sr_class: SrClass = "comprehensive3d"
    results: tuple[DicomResult | TextResult, ...] = ("sr", "sc")


class _OverWeb(_Section):
    """What is reached by HTTP. A secret stands in a file of its own, never in config.toml."""

    name: Name
    url: WebAddress
    # HTTP Basic: a user, and the file whose first line is the password
    user: str = ""
    password_file: Path | None = None
    # the file whose first line goes out as `Authorization: Bearer …`
    token_file: Path | None = None
    # PEM: who may sign the server's certificate; None: whom the system trusts
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file belong together")
        if self.user and self.token_file:
            raise ValueError("either user and password_file, or token_file")
        if (self.user or self.token_file) and self.url.startswith("http:") and not _is_loopback(self.url):
            raise ValueError("a secret goes over https only")
        return self


class WebDestination(_OverWeb):
    """DICOMweb, STOW-RS (PS3.18 10.5); `url` is what `/studies` comes after."""

    kind: Literal["web"]
    sr_class: SrClass = "comprehensive3d"
    results: tuple[DicomResult, ...] = ("sr", "sc")


class HttpDestination(_OverWeb):
    """A POST of JSON to `url`."""

    kind: Literal["http"]
    results: tuple[TextResult, ...] = ("json",)


class Hl7Destination(_Section):
    """HL7 v2 ORU^R01 over MLLP."""

    name: Name
    kind: Literal["hl7"]
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    # MSH-5 and MSH-6
    application: Annotated[str, Field(max_length=180)] = ""
    facility: Annotated[str, Field(max_length=180)] = ""
    tls: bool = False
    ca_file: Path | None = None
    results: tuple[Literal["oru"], ...] = ("oru",)


Destination = Annotated[
    DimseDestination | FolderDestination | WebDestination | HttpDestination | Hl7Destination,
    Field(discriminator="kind"),
]


DESTINATIONS = (DimseDestination, FolderDestination, WebDestination, HttpDestination, Hl7Destination)


class BodyPartWords(_Section):
    chest: tuple[str, ...] = ()
    other: tuple[str, ...] = ()


class ViewWords(_Section):
    frontal: tuple[str, ...] = ()
    other: tuple[str, ...] = ()


class Words(_Section):
    """What a site adds to the words that `model/scope.py` knows."""

    body_part: BodyPartWords = BodyPartWords()
    view: ViewWords = ViewWords()


class Scope(_Section):
    min_age: Annotated[int, Field(ge=0, le=130)] = 18
    unknown_age: Unknown = "analyze"
    unknown_body_part: Unknown = "skip"
    unknown_view: Unknown = "skip"
    # what is done with a picture that looks unlike what the model was made for
    learned: Literal["skip", "flag", "off"] = "skip"
    words: Words = Words()

    @property
    def asks_guard(self) -> bool:
        return "model" in (self.unknown_age, self.unknown_body_part, self.unknown_view)


class Report(_Section):
    per: Literal["image", "study"] = "image"
    # per study: so long nothing of it has come, but never later than so long after its first image
    quiet_seconds: Annotated[float, Field(ge=0, le=86_400)] = 120
    limit_seconds: Annotated[float, Field(ge=0, le=86_400)] = 900
    intended_use: Literal["triage", "marks"] = "triage"
    # IANA name, "Europe/Berlin"; empty: the machine's own
    timezone: str = ""

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        if value:
            try:
                ZoneInfo(value)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError(f'no time zone {value!r}; write a name like "Europe/Berlin"') from None
        return value

    @property
    def zone(self) -> tzinfo | None:
        return ZoneInfo(self.timezone) if self.timezone else None


class Retention(_Section):
    images_days: Annotated[int, Field(ge=0)] = 30
    results_days: Annotated[int, Field(ge=0)] = 90
    # whole sealed months whose last day is older than this; 0: never
    audit_days: Annotated[int, Field(ge=0)] = 0


class Repository(_Section):
    """An audit record repository (IHE ATNA), which gets every record by syslog. All files are PEM."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 6514
    # tls: RFC 5425; udp: RFC 5426, where a lost datagram is a lost copy
    transport: Literal["tls", "udp"] = "tls"
    # who may sign the server's certificate; None: whom the system trusts
    ca_file: Path | None = None
    # what we show to a server that asks for it
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _files_for_tls_alone(self) -> Self:
        given = next((key for key in ("ca_file", "certificate", "key") if getattr(self, key)), "")
        if given and self.transport != "tls":
            raise ValueError(
                f"{given} is given, but nothing is encrypted with transport = {self.transport!r}"
            )
        if self.key and not self.certificate:
            raise ValueError("key belongs to a certificate: name that too")
        return self


class Audit(_Section):
    # keyed-hash: the values behind the hashes of a patient's identifiers are not kept
    identifiers: Literal["full", "keyed-hash"] = "full"
    # where the newest seal is put down each time; None: `anchors` in the data folder
    anchor_folder: Path | None = None
    repository: Repository | None = None

    @property
    def keeps_names(self) -> bool:
        return self.identifiers == "full"


def _refused_until_built(value: object) -> object:
    if value:
        raise ValueError("is not built yet in this version; leave it out")
    return value


class Watch(_Section):
    http: Annotated[str, BeforeValidator(_refused_until_built)] = ""


class Storage(_Section):
    """Empty: SQLite at `data_dir`/hilum.db."""

    url: Annotated[str, BeforeValidator(_refused_until_built)] = ""


class Settings(_Section):
    node: Node = Node()
    receive: Receive = Receive()
    analyze: Analyze = Analyze()
    destinations: tuple[Destination, ...] = ()
    scope: Scope = Scope()
    report: Report = Report()
    retention: Retention = Retention()
    audit: Audit = Audit()
    watch: Watch = Watch()
    storage: Storage = Storage()

    @property
    def cache_folder(self) -> Path:
        """What can be made again: networks that were converted for another runtime."""
        return self.node.data_dir / "cache"

    @model_validator(mode="before")
    @classmethod
    def _kind_defaults_to_dimse(cls, value: Any) -> Any:
        """A destination without `kind` is a DIMSE one: what a PACS administrator means."""
        if isinstance(value, dict) and isinstance(value.get("destinations"), list):
            listed = [{"kind": "dimse", **d} if isinstance(d, dict) else d for d in value["destinations"]]
            value = {**value, "destinations": listed}
        return value

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        names = [d.name for d in self.destinations]
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise ValueError(f"two destinations are called {twice.pop()!r}; give each its own name")
        return self

    @model_validator(mode="after")
    def _no_marks_in_triage(self) -> Self:
        """A presentation state is nothing but marks, and a triage device must not localize."""
        wanting = [d.name for d in self.destinations if "gsps" in d.results]
        if wanting and self.report.intended_use == "triage":
            raise ValueError(
                f'{wanting[0]!r} wants "gsps", which draws on the image; it needs [report] intended_use = "marks"'
            )
        return self

    def with_changes(self, section: str, **changes: Any) -> "Settings":
        """A copy in which one section has other values, checked like the file's; None leaves a value as it is."""
        changes = {k: v for k, v in changes.items() if v is not None}
        if not changes:
            return self
        tree = self.model_dump(mode="python")
        tree[section] = {**tree[section], **changes}
        try:
            return Settings.model_validate(tree)
        except ValidationError as e:
            raise Misuse(_one_line("command line", e)) from e


def load(file: Path | None = None) -> Settings:
    """The settings of `file`; without one those of config.toml in the working folder; without that the defaults.

    Relative paths in the file count from the file's folder. Raises Misuse: one line with file, key, what is
    wrong and what would be right.
    """
    chosen = file or DEFAULT_FILE
    if file is None and not chosen.exists():
        return Settings()
    try:
        tree = tomllib.loads(chosen.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Misuse(f"{chosen}: no such file; name the configuration with --config FILE") from None
    except (OSError, UnicodeDecodeError) as e:
        raise Misuse(
            f"{chosen}: can't be read: {e.strerror if isinstance(e, OSError) else 'not UTF-8'}"
        ) from e
    except tomllib.TOMLDecodeError as e:
        raise Misuse(f"{chosen}: not valid TOML: {e}") from e
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as e:
        raise Misuse(_one_line(str(chosen), e)) from e
    return _anchored(settings, chosen.resolve().parent)


def _anchored(settings: Settings, folder: Path) -> Settings:
    destinations = tuple(_anchored_destination(d, folder) for d in settings.destinations)
    node = settings.node.model_copy(update={"data_dir": folder / settings.node.data_dir})
    analyze = _with_files(settings.analyze, folder, "model", "shadow")
    tls = settings.receive.tls and _with_files(settings.receive.tls, folder, "certificate", "key", "ca_file")
    receive = settings.receive.model_copy(update={"tls": tls})
    repository = settings.audit.repository and _with_files(
        settings.audit.repository, folder, "certificate", "key", "ca_file"
    )
    audit = _with_files(settings.audit, folder, "anchor_folder").model_copy(update={"repository": repository})
    return settings.model_copy(
        update={
            "destinations": destinations,
            "node": node,
            "analyze": analyze,
            "receive": receive,
            "audit": audit,
        }
    )


def _anchored_destination(destination: Destination, folder: Path) -> Destination:
    keys = ("path", "password_file", "token_file", "ca_file", "certificate", "key")
    return _with_files(destination, folder, *keys)


S = TypeVar("S", bound=_Section)


def _with_files(section: S, folder: Path, *keys: str) -> S:
    """A copy in which the paths under these keys, where it has them, count from the folder."""
    given = {key: getattr(section, key, None) for key in keys}
    return section.model_copy(update={key: folder / value for key, value in given.items() if value})


def _one_line(source: str, error: ValidationError) -> str:
    """The first thing wrong, as `config.toml: receive.port: … (given: 70000)`."""
    first = error.errors(include_url=False)[0]
    where = [str(p) for p in first["loc"] if p not in {"dimse", "folder", "web", "http", "hl7"}]
    key = ".".join(where) or "file"
    if first["type"] == "extra_forbidden":
        return f"{source}: {key}: no such key; see the commented config.toml for those that exist"
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    given = first.get("input")
    # what stands before an @ in an address may be a password
    tellable = isinstance(given, str | int | float | bool) and not (
        where[-1:] == ["url"] and "@" in str(given)
    )
    shown = f" (given: {given!r})" if tellable else ""
    more = len(error.errors()) - 1
    return f"{source}: {key}: {message}{shown}" + (f"; and {more} more" if more else "")
