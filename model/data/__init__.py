"""Getting images and labels, checking and cleaning them, and splitting them by patient.

    source.py    a TOML file of addresses -> what is to be fetched; nih.toml is NIH ChestX-ray14's
    fetch.py     the folder that a data set arrives in, and its manifest
    download.py  one file over HTTP, however often the connection breaks
    unpack.py    an archive -> files, none of them outside the folder
    progress.py  how far a long step is
    rsna.py      RSNA's DICOM set -> a label file
    clean.py     what is wrong with a table, mended or left out, and said
    split.py     train, validation and test, apart by patient

Nothing here opens a picture's pixels.
"""
