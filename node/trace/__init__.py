"""`hilum audit trace`: one study's story, from the first byte to the PACS's acknowledgement, for print and the file.

find       what was asked for, and every record of it        now      where it stands in the queues
sentences  one record in plain words                         story    records in their order, by image
pages      the story as a paper
"""
