"""The audit log for others: the same records as DICOM audit messages, sent to an audit record repository (IHE ATNA).

codes     which message an event is               messages   a record -> one XML document (PS3.15 A.5)
syslog    how a message travels (PS3.15 A.6, A.7)   forward    the process: nothing lost, nobody held up
"""
