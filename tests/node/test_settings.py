"""One line says which file and key is wrong, and what would be right."""

from pathlib import Path

import pytest

from node.errors import Misuse
from node.settings import DimseDestination, FolderDestination, Settings, WebDestination, load

DESTINATION = '[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 104\n'


def told(tmp_path: Path, text: str) -> str:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(Misuse) as refused:
        load(file)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(file))
    return str(refused.value)


def settings_of(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return load(file)


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load() == Settings()


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no such file"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[receive]\nprot = 11112\n", "receive.prot"),
        ("[recieve]\nport = 11112\n", "recieve"),
        ("[receive]\nport = 70000\n", "receive.port"),
        ('[receive]\nmin_free_bytes = "2 GX"\n', "receive.min_free_bytes"),
        ('[node]\nae_title = "A\\\\B"\n', "node.ae_title"),
        ('[node]\nae_title = "SEVENTEEN_LETTERS"\n', "node.ae_title"),
        ('[report]\ntimezone = "Mars/Olympus"\n', "report.timezone"),
        (DESTINATION + 'results = ["fax"]\n', "destinations.0.results.0"),
        (DESTINATION + 'kind = "pigeon"\n', "destinations.0"),
        (DESTINATION + "port = 0\n".replace("port", "prot"), "destinations.0.prot"),
        (DESTINATION + DESTINATION, "two destinations are called 'a'"),
    ],
)
def test_a_wrong_key_or_value_is_named_in_one_line(tmp_path: Path, text: str, key: str) -> None:
    assert key in told(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        '[watch]\nhttp = "127.0.0.1:8042"\n',
        '[storage]\nurl = "postgresql://h/d"\n',
    ],
)
def test_what_is_not_built_yet_is_refused_and_says_so(tmp_path: Path, text: str) -> None:
    assert "not built yet" in told(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DESTINATION + 'results = ["gsps"]\n', "marks"),
        (DESTINATION + 'results = ["json"]\n', "results"),
        ('[[destinations]]\nname = "w"\nkind = "web"\nurl = "pacs/dicom-web"\n', "https://"),
        ('[[destinations]]\nname = "w"\nkind = "web"\nurl = "https://me:secret@pacs/"\n', "without user"),
        (
            '[[destinations]]\nname = "w"\nkind = "http"\nurl = "http://10.1.2.3/"\ntoken_file = "t"\n',
            "https only",
        ),
        ('[[destinations]]\nname = "w"\nkind = "web"\nurl = "https://pacs/"\nuser = "me"\n', "password_file"),
    ],
)
def test_a_destination_that_can_not_work_is_refused(tmp_path: Path, text: str, said: str) -> None:
    line = told(tmp_path, text)
    assert said in line and "me:secret" not in line


def test_a_destinations_files_count_from_the_configurations_folder(tmp_path: Path) -> None:
    text = '[[destinations]]\nname = "w"\nkind = "web"\nurl = "https://pacs/rs/"\ntoken_file = "t"\nca_file = "/ca"\n'
    (found,) = settings_of(tmp_path, text).destinations
    assert isinstance(found, WebDestination)
    assert (found.token_file, found.ca_file, found.url) == (tmp_path / "t", Path("/ca"), "https://pacs/rs")


@pytest.mark.parametrize("written", ['"2 GB"', '"2GB"', "2000000000", '"2000 MB"'])
def test_a_size_is_bytes_or_a_text_with_a_unit(tmp_path: Path, written: str) -> None:
    found = settings_of(tmp_path, f"[receive]\nmin_free_bytes = {written}\n")
    assert found.receive.min_free_bytes == 2 * 10**9


def test_relative_paths_count_from_the_configurations_folder(tmp_path: Path) -> None:
    found = settings_of(
        tmp_path,
        '[node]\ndata_dir = "d"\n[analyze]\nmodel = "m"\n'
        '[[destinations]]\nname = "f"\nkind = "folder"\npath = "out"\n',
    )
    assert found.node.data_dir == tmp_path / "d"
    assert found.analyze.model == tmp_path / "m"
    destination = found.destinations[0]
    assert isinstance(destination, FolderDestination)
    assert destination.path == tmp_path / "out"


def test_commitment_is_asked_for_only_where_it_is_said(tmp_path: Path) -> None:
    (first,) = settings_of(tmp_path, DESTINATION).destinations
    (second,) = settings_of(tmp_path, DESTINATION + "commitment = true\n").destinations
    assert isinstance(first, DimseDestination) and isinstance(second, DimseDestination)
    assert (first.commitment, first.commitment_seconds) == (False, 600)
    assert second.commitment
    found = settings_of(
        tmp_path, '[receive]\npeers = [{ ae_title = "CR", host = "10.0.0.0/8", port = 104 }]\n'
    )
    assert found.receive.peers[0].port == 104


def test_a_destination_without_a_kind_is_a_dicom_one(tmp_path: Path) -> None:
    assert isinstance(settings_of(tmp_path, DESTINATION).destinations[0], DimseDestination)


def test_the_command_line_is_checked_like_the_file() -> None:
    assert Settings().with_changes("receive", port=104, host=None).receive.port == 104
    with pytest.raises(Misuse, match=r"receive\.port"):
        Settings().with_changes("receive", port=-1)


def test_what_a_child_process_is_given_is_what_the_parent_had(tmp_path: Path) -> None:
    before = settings_of(tmp_path, DESTINATION + '[report]\ntimezone = "Europe/Berlin"\n')
    assert Settings.model_validate_json(before.model_dump_json()) == before
