"""Hilum beside DCMTK, Orthanc and pynetdicom, measured in one run: `scripts/bench`.

Only ratios of one run are worth anything: all nodes take turns on the same disk, round by round, the order reversed
every other round, and each ratio is taken within its round.
"""
