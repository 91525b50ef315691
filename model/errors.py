"""The errors of `model`, all of them.

ModelError
├── Unreadable     this is not a DICOM file, a PNG or a JPEG: nothing can be said about it
├── Undecodable    a whole object whose pixels can't be turned into a picture: the job is parked
├── BadModel       a model folder whose card or weights are missing, damaged or don't belong together
├── BadData        a label table, a split, a recipe or an option of the model's commands that can't be used
└── NotFetched     a download that the network, the server or a checksum refused; what arrived is kept
"""


class ModelError(Exception):
    """What `model` raises; the message is one sentence, names no patient and is fit for a person."""


class Unreadable(ModelError):
    """The file is no DICOM file, PNG or JPEG, or breaks off."""


class Undecodable(ModelError):
    """The pixels are absent, damaged, or contradict the header."""


class BadModel(ModelError):
    """The model folder can't be used."""


class BadData(ModelError):
    """A table, split, recipe or option can't be used: the message says the file, the line or column, and what to do."""


class NotFetched(ModelError):
    """A download did not succeed; run again to go on from what is there."""
