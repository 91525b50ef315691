"""The errors of `model`, all of them.

ModelError
├── Unreadable     this is not a DICOM file, a PNG or a JPEG: nothing can be said about it
├── Undecodable    a whole object whose pixels can't be turned into a picture: the job is parked
└── BadModel       a model folder whose card or weights are missing, damaged or don't belong together
"""


class ModelError(Exception):
    """What `model` raises; the message is one sentence, names no patient and is fit for a person."""


class Unreadable(ModelError):
    """The file is no DICOM file, PNG or JPEG, or breaks off."""


class Undecodable(ModelError):
    """The pixels are absent, damaged, or contradict the header."""


class BadModel(ModelError):
    """The model folder can't be used."""
