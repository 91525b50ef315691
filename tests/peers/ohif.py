"""OHIF in a real browser, before a real Orthanc: a study is opened as a radiologist opens it, and looked at.

The viewer is the build that its makers publish on npm. It is fetched once, into a cache outside the repository, and
never believed without its checksum. No other page of the network is asked for anything.
"""

import base64
import hashlib
import http.client
import os
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pytest
from peers.servers import Orthanc, running
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

T = TypeVar("T")

VERSION = "3.13.2"
INTEGRITY = "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""SHA-512 of the package, as the npm registry gives it."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hilum-tests" / f"ohif-{VERSION}"
NOT_NEEDED = ("/ort/", "/dicom-microscopy-viewer/", ".map")
"""Segmentation networks, whole slides, sources: 180 of the 204 MB."""

DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
ERRORS = ("Something went wrong", "Multiple Patients", "Failed to", "Unsupported")
"""What OHIF says in its pages and headers when it can't show what it was given."""

CONFIG = """
window.config = {
  routerBasename: null, extensions: [], modes: [], customizationService: {},
  showStudyList: true, maxNumberOfWebWorkers: 2, showErrorDetails: 'always',
  showWarningMessageForCrossOrigin: true, showCPUFallbackMessage: true, showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true, groupEnabledModesFirst: true,
  investigationalUseDialog: { option: 'never' },
  disableConfirmationPrompts: true, measurementTrackingMode: 'none',
  defaultDataSourceName: 'dicomweb',
  dataSources: [{ namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'dicomweb',
    configuration: { friendlyName: 'Orthanc', name: 'orthanc',
      wadoUriRoot: '/wado', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web',
      qidoSupportsIncludeField: false, supportsReject: false,
      imageRendering: 'wadors', thumbnailRendering: 'wadors', enableStudyLazyLoad: true,
      supportsFuzzyMatching: false, supportsWildcard: true, dicomUploadEnabled: false,
      omitQuotationForMultipartRequest: true, bulkDataURI: { enabled: true } } }] };
"""
BROWSER = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
]  # fmt: skip
SIZE = {"width": 1120, "height": 720}
STEP = 12
GRID = '[data-cy="viewport-grid"]'
CANVAS = f"{GRID} canvas.cornerstone-canvas"
THUMBNAIL = '[data-cy^="study-browser-thumbnail"]'
LABEL = '[data-cy="series-description-label"]'
PATIENCE, PAUSE = 60_000, 200
"""Milliseconds; between two looks."""


def build(program: Callable[[str], str]) -> Path:
    """The folder with OHIF's index.html; skips the test where it can't be had."""
    if not CACHE.is_dir():
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE.parent) as folder:
            _unpack(_fetch(program("npm"), Path(folder)), Path(folder))
            # another process may have been faster
            if not CACHE.is_dir():
                (Path(folder) / "package/dist").rename(CACHE)
    return CACHE


def _fetch(npm: str, folder: Path) -> Path:
    command = [npm, "pack", f"@ohif/app@{VERSION}", "--pack-destination", str(folder)]
    try:
        fetched = subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=folder, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("OHIF can't be fetched: npm does not end")
    if fetched.returncode:
        pytest.skip(f"OHIF can't be fetched: npm ends with {fetched.returncode}")
    (package,) = folder.glob("*.tgz")
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    assert digest == INTEGRITY, "this is not the OHIF that its makers published"
    return package


def _unpack(package: Path, folder: Path) -> None:
    with tarfile.open(package) as archive:
        for member in archive:
            inside = member.name.startswith("package/dist/")
            if inside and not any(part in member.name for part in NOT_NEEDED):
                archive.extract(member, folder, filter="data")


class _Site(SimpleHTTPRequestHandler):
    """The viewer's files, and behind the same address Orthanc's DICOMweb."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: object, dicomweb: int, directory: str) -> None:
        self.dicomweb = dicomweb
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(("/dicom-web", "/wado")):
            self._pass_on()
        elif path == "/app-config.js":
            self._answer(200, "text/javascript", CONFIG.encode())
        else:
            if not Path(self.translate_path(path)).is_file():
                self.path = "/index.html"
            super().do_GET()

    do_POST = do_GET  # noqa: N815

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # Host goes on as it came: Orthanc writes addresses of bulk data with it
        ours = {"connection", "accept-encoding"}
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ours}
        asked = http.client.HTTPConnection("127.0.0.1", self.dicomweb, timeout=30)
        try:
            asked.request(self.command, self.path, body or None, headers)
            answer = asked.getresponse()
            self._answer(answer.status, answer.headers.get("Content-Type", "text/plain"), answer.read())
        finally:
            asked.close()

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        # shared memory, which the viewer's workers want, is for isolated pages only
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def handle(self) -> None:
        # the page may be left while it loads
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def site(folder: Path, dicomweb: int) -> Iterator[str]:
    """The address of the viewer in `folder`, before the Orthanc whose HTTP port is `dicomweb`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Site, dicomweb=dicomweb, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Viewer:
    """One tab. What it is told to wait for must come: the test fails otherwise, with what was seen instead."""

    def __init__(self, page: "Page", address: str, orthanc: Orthanc) -> None:
        self.orthanc = orthanc
        self._page = page
        self._address = address
        self._raised: list[str] = []
        page.set_default_timeout(PATIENCE)
        # a tour for newcomers, which swallows clicks
        page.add_locator_handler(page.get_by_text("Skip all"), lambda skip: skip.click())
        page.on("pageerror", lambda error: self._raised.append(f"uncaught: {error.message}"))
        page.on("request", self._note_stranger)

    def open(self, study: str, *, series: int, mode: str = "basic") -> None:
        """A study by its UID, in a mode of OHIF; returns when so many series are listed and an image is drawn."""
        self._raised.clear()
        self._page.goto(f"{self._address}/{mode}?StudyInstanceUIDs={study}")
        self._page.wait_for_function(
            "([what, n]) => document.querySelectorAll(what).length >= n", arg=[LABEL, series]
        )
        # a report that is opened before its image is drawn stays without outlines
        self._wait(self._brightest, lambda level: level > 200, "an image")

    @property
    def series(self) -> set[str]:
        """The descriptions in the list of series."""
        return set(self._page.locator(LABEL).all_inner_texts())

    @property
    def unsupported(self) -> set[str]:
        """Those of them that bear a warning sign."""
        return set(self._page.locator(f"{THUMBNAIL}:has(#status-warning) {LABEL}").all_inner_texts())

    def click(self, description: str) -> None:
        """Double-clicks a series."""
        self._page.locator(LABEL).get_by_text(description, exact=True).dblclick()

    def show(self, description: str, until: str) -> str:
        """Double-clicks a series; all text of the viewport as soon as it says `until`."""
        self.click(description)
        return self._wait(lambda: self.said(), lambda said: until in said, f"{until!r}")

    def show_paper(self, description: str) -> None:
        """Double-clicks a document; returns when a white page with something black on it is seen."""
        self.click(description)
        self._wait(self._brightness, lambda shares: shares[0] > 0.2 and shares[1] > 0.005, "a page")

    def said(self) -> str:
        return self._page.locator(GRID).inner_text()

    def picture(self) -> Image.Image:
        """What is drawn in the viewport, in grey."""
        return self._seen(CANVAS)

    def measurements(self, rows: int) -> list[str]:
        """The measurements panel is opened; its rows, as soon as there are so many."""
        self._page.locator('[data-cy="panelMeasurement-btn"], [data-cy="trackedMeasurements-btn"]').click()
        listed = self._page.locator('[data-cy="data-row"]')
        return self._wait(listed.all_inner_texts, lambda found: len(found) >= rows, f"{rows} rows")

    def trouble(self) -> list[str]:
        """Errors on the page, in notices, in dialogs; what was raised; whom the page asked that is not we."""
        said = self._page.locator("body").inner_text()
        notices = self._page.locator('[data-sonner-toast], [role="dialog"], [role="alert"]').all_inner_texts()
        return [*(error for error in ERRORS if error in said), *notices, *self._raised]

    def wait_for_trouble(self) -> list[str]:
        return self._wait(self.trouble, bool, "an error")

    def photograph(self, file: Path) -> None:
        """The whole tab as PNG, when nothing in it moves any more; in steps of brightness that make it small."""
        shots = [b""]

        def at_rest() -> bool:
            shots.append(self._page.screenshot())
            return shots[-1] == shots[-2]

        self._wait(at_rest, bool, "rest")
        shot = Image.open(BytesIO(shots[-1])).convert("RGB")
        shot.point([round(level / STEP) * STEP for level in range(256)] * 3).save(file, optimize=True)

    def _seen(self, what: str) -> Image.Image:
        return Image.open(BytesIO(self._page.locator(what).first.screenshot())).convert("L")

    def _brightest(self) -> int:
        return int(np.asarray(self.picture()).max()) if self._page.locator(CANVAS).count() else 0

    def _brightness(self) -> tuple[float, float]:
        """Which shares of the viewport are white and black."""
        levels = np.asarray(self._seen(GRID))
        return float((levels > 230).mean()), float((levels < 30).mean())

    def _wait(self, look: Callable[[], T], enough: Callable[[T], bool], what: str) -> T:
        end = time.monotonic() + PATIENCE / 1000
        while not enough(seen := look()):
            if time.monotonic() > end:
                raise AssertionError(f"{what} did not come; {self.trouble()}; {seen!r}")
            self._page.wait_for_timeout(PAUSE)
        return seen

    def _note_stranger(self, request: "Request") -> None:
        # the browser shows PDF documents with an extension of its own
        if not request.url.startswith((self._address, "blob:", "data:", "chrome-extension:", "chrome:")):
            self._raised.append(f"asked {request.url}")


@contextmanager
def viewing(program: Callable[[str], str], free_port: Callable[[], int], folder: Path) -> Iterator[Viewer]:
    """OHIF in a browser before an empty Orthanc; skips where one of them is not here."""
    from playwright.sync_api import sync_playwright

    if not Path(DICOMWEB).exists():
        pytest.skip("orthanc-dicomweb is not installed")
    chromium, site_folder = program("chromium"), build(program)
    dicomweb = {
        "Enable": True, "Root": "/dicom-web/", "EnableWado": True, "WadoRoot": "/wado",
        "StudiesMetadata": "Full", "SeriesMetadata": "Full",
    }  # fmt: skip
    peer = Orthanc(
        program("Orthanc"), free_port(), free_port(), folder, Plugins=[DICOMWEB], DicomWeb=dicomweb
    )
    with running(peer), site(site_folder, peer.http_port) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER)
        try:
            yield Viewer(browser.new_page(viewport=SIZE), address, peer)
        finally:
            browser.close()
