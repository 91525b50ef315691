"""hilum model import: a network that somebody else trained -> a model folder. `run.import_model` is the door.

    source.py          which kind of file it is, by its first bytes; pickles and all else are refused
    legacy.py          my_model.json and weights in HDF5, or both in one HDF5 file
    keras_file.py      a .keras file
    saved_model.py     a TensorFlow SavedModel folder -> a frozen graph
    graph.py           what a frozen graph may do, and how it runs
    architecture.py    a description in JSON -> layers of ours
    layers.py          the layers that there are, and what each may be told
    built.py           these -> a Keras model
    hdf5.py            weights into it
    vgg.py             a VGG16 under a head that is built here anyway: marks can be drawn then
    preprocess.py      named ways to make a network's input
    check.py           the self-check
    card_tree.py       the card that is written

No file is given to Keras's or TensorFlow's own loaders, and no name that stands in a file is ever looked up.
"""
