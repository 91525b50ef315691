"""The forwarding rule that the documentation gives to an Orthanc works as it stands there, and makes no loop."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from peers.node import running_node, send, until
from peers.servers import Orthanc, running

from model import phantom

PAGE = Path(__file__).parents[1] / "docs/pacs.md"

pytestmark = pytest.mark.peer


def test_orthanc_forwards_by_the_documented_script_and_gets_the_results_back_once(
    tmp_path: Path, program: Callable[[str], str], free_port: Callable[[], int]
) -> None:
    (lua,) = re.findall(r"```lua\n(.*?)```", PAGE.read_text(), re.DOTALL)
    script = tmp_path / "to-hilum.lua"
    script.write_text(lua)
    node_port = free_port()
    orthanc = Orthanc(
        program("Orthanc"),
        free_port(),
        free_port(),
        tmp_path / "orthanc",
        LuaScripts=[str(script)],
        DicomModalities={"hilum": ["HILUM", "127.0.0.1", node_port]},
        StableAge=1,
    )
    config = f"""
    min_free_bytes = 0
    [[destinations]]
    name = "pacs"
    ae_title = "ORTHANC"
    host = "127.0.0.1"
    port = {orthanc.port}
    """
    image = tmp_path / "phantom.dcm"
    phantom.draw(11, patch=True).save_as(image, enforce_file_format=True)
    with running(orthanc), running_node(tmp_path / "node", config, node_port) as node:
        assert send(program("storescu"), orthanc.port, [image]).returncode == 0
        until(lambda: len(orthanc.find()) == 3)
        # the results become stable too; a rule that sent them back would do so now
        time.sleep(4)
        until(node.settled)
        assert len(orthanc.find()) == 3
        received = node.audit("object.received")
        assert [record["sop"] for record in received] == [phantom.draw(11, patch=True).SOPInstanceUID]
        assert not node.audit("object.repeated")
