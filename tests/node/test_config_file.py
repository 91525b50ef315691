"""The commented config.toml and docs/reference.md say what the code does."""

from pathlib import Path

from pydantic import BaseModel

from node import reference
from node.settings import DESTINATIONS, ReceiveTls, Repository, Settings, load

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config.toml"


def test_the_commented_configuration_is_the_defaults() -> None:
    found = load(CONFIG)
    assert found.node.data_dir == ROOT / Settings().node.data_dir
    assert found.with_changes("node", data_dir=Settings().node.data_dir) == Settings()


def test_every_key_stands_in_the_commented_configuration_and_no_other() -> None:
    written = {(key.section, key.name) for key in reference.keys(CONFIG.read_text())}
    expected = {("destinations", name) for kind in DESTINATIONS for name in kind.model_fields}
    for section, described in Settings.model_fields.items():
        annotation = described.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            expected |= {(section, name) for name in annotation.model_fields}
    expected -= {("scope", "words"), ("receive", "tls"), ("audit", "repository")}
    expected |= {("receive.tls", name) for name in ReceiveTls.model_fields}
    expected |= {("audit.repository", name) for name in Repository.model_fields}
    expected |= {("scope.words", "body_part"), ("scope.words", "view")}
    assert written == expected


def test_every_key_of_the_configuration_is_explained() -> None:
    assert [key for key in reference.keys(CONFIG.read_text()) if not key.comment] == []


def test_the_reference_is_what_the_code_says() -> None:
    made = reference.write(CONFIG.read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == made, "run scripts/reference"
