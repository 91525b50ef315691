"""TensorBoard's event files, without TensorFlow: `tensorboard --logdir RUN/tensorboard`.

A file an epoch, named by its number: an epoch that is run again after a kill replaces its own file, and curves stay
single. TensorBoard reads the files of a folder in the order of their names.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path


def write_events(folder: Path, epoch: int, values: Mapping[str, float]) -> None:
    """The scalars of one epoch; those that are not finite are left out. Raises OSError."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = time.time()
    scalars = [
        Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if math.isfinite(value)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"events.out.tfevents.{epoch:010d}.hilum"
    half = folder / f"{epoch}.part"
    with half.open("wb") as out:
        records = RecordWriter(out)
        records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        records.write(Event(wall_time=now, step=epoch, summary=Summary(value=scalars)).SerializeToString())
    half.replace(file)
