"""A certificate or key that can't be used: one line says section, key, file, and what to do; before anything starts."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.certificates import refuse_unusable
from node.cli import main
from node.errors import Misuse
from node.settings import DimseDestination, load

DESTINATION = '[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "h"\nport = 104\ntls = true\n'


@pytest.fixture(scope="module")
def folder(program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run([program("openssl"), *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("node", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    openssl("pkey", "-in", "node.key", "-aes256", "-passout", "pass:secret", "-out", "locked.key")
    openssl("x509", "-in", "node.pem", "-outform", "der", "-out", "node.der")
    (folder / "both.pem").write_text((folder / "node.key").read_text() + (folder / "node.pem").read_text())
    (folder / "cut.pem").write_text((folder / "node.pem").read_text()[:400] + "\n-----END CERTIFICATE-----\n")
    return folder


def told(folder: Path, text: str) -> str:
    file = folder / "config.toml"
    file.write_text(text)
    with pytest.raises(Misuse) as refused:
        refuse_unusable(load(file))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def receive(**files: str) -> str:
    return "[receive.tls]\n" + "".join(f'{key} = "{name}"\n' for key, name in files.items())


@pytest.mark.parametrize(
    ("text", "key", "file", "said"),
    [
        (receive(certificate="none.pem"), "receive.tls.certificate", "none.pem", "No such file"),
        (receive(certificate="."), "receive.tls.certificate", "", "Is a directory"),
        (receive(certificate="node.der", key="node.key"), "receive.tls.certificate", "node.der", "no certificate"),
        (receive(certificate="node.pem"), "receive.tls.certificate", "node.pem", "no private key"),
        (receive(certificate="node.pem", key="none.key"), "receive.tls.key", "none.key", "No such file"),
        (receive(certificate="node.pem", key="other.pem"), "receive.tls.key", "other.pem", "no private key"),
        (receive(certificate="node.pem", key="other.key"), "receive.tls.key", "other.key", "not the key of"),
        (receive(certificate="node.pem", key="locked.key"), "receive.tls.key", "locked.key", "pass phrase"),
        (receive(certificate="cut.pem", key="node.key"), "receive.tls.certificate", "cut.pem", "whole"),
        (receive(certificate="both.pem", ca_file="node.der"), "receive.tls.ca_file", "node.der", "no certificate"),
        (receive(certificate="both.pem", ca_file="cut.pem"), "receive.tls.ca_file", "cut.pem", "whole"),
        (DESTINATION + 'ca_file = "none.pem"\n', "destinations.0.ca_file", "none.pem", "No such file"),
        (DESTINATION + 'certificate = "node.pem"\n', "destinations.0.certificate", "node.pem", "no private key"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_which_file_stands_in_one_line(
    folder: Path, text: str, key: str, file: str, said: str
) -> None:
    line = told(folder, text)
    assert line.startswith(f"{key}: {folder / file}") and said in line


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_node_does_not_start_with_it(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "config.toml"
    file.write_text('[node]\ndata_dir = "data"\n' + receive(certificate="both.pem", ca_file="none.pem"))
    assert main([command, "--config", str(file)]) == 2
    assert "receive.tls.ca_file" in capsys.readouterr().err
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (receive(key="node.key"), "receive.tls.certificate"),
        (DESTINATION.replace("true", "false") + 'ca_file = "ca.pem"\n', "tls = true"),
        (DESTINATION + 'key = "node.key"\n', "key belongs to a certificate"),
    ],
)
def test_half_of_it_is_refused(folder: Path, text: str, said: str) -> None:
    assert said in told(folder, text)


def test_files_count_from_the_configurations_folder_and_one_may_hold_both(folder: Path) -> None:
    file = folder / "config.toml"
    text = receive(certificate="both.pem", ca_file="node.pem") + DESTINATION
    file.write_text(text + 'ca_file = "node.pem"\ncertificate = "node.pem"\nkey = "node.key"\n')
    settings = load(file)
    refuse_unusable(settings)
    assert settings.receive.tls and settings.receive.tls.certificate == folder / "both.pem"
    (there,) = settings.destinations
    assert isinstance(there, DimseDestination) and there.key == folder / "node.key"
    copied: Any = type(settings).model_validate_json(settings.model_dump_json())
    assert copied == settings
