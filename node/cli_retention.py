"""hilum retention …: one function a command. It parses, calls, prints."""

from node.app import Config, Json, new_app, opened
from node.settings import load

retention = new_app("How long images, results and the audit log are kept.")


@retention.command("preview")
def retention_preview(config: Config = None, as_json: Json = False) -> None:
    """Say what the next run would remove, and what stays beyond its time and why. Nothing is removed.

    JSON: images and results (days, go, bytes, oldest, stay: number by parked, unread, undelivered, uncommitted), audit
    (days, months: month, first_id, last_id; waits: why the first of them can't go yet; next_month, next_on).
    """
    from node import show
    from node.retention import as_json as told
    from node.retention import describe, preview

    settings = load(config)
    with opened(settings) as store:
        found = preview(store, settings)
    if as_json:
        print(show.line(told(found)))
    else:
        describe(found, settings)
