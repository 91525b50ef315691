"""`hilum audit report`: a page a month for the file: volumes, availability, failures, model versions, changes.

months        which months, and where they begin and end       tally     one pass over a month's records, counted
availability  when the node was up, and what interrupted it    pages     a month as a paper
"""
