"""A network by TensorFlow: one graph with a free batch dimension, so that a lone image costs a lone image and no batch
size is traced twice. In a process that has trained with another backend, Keras's own call does what the graph does.

On a GPU it is the same graph; how many pictures go through it together is the caller's affair ([analyze] batch_size).
"""

from typing import Any

import numpy as np

from model import network
from model.card import Card
from model.runtime import Run, Said


def start(card: Card) -> Run:
    """Takes some seconds, most of them TensorFlow's import. Raises BadModel."""
    return compiled(loaded(card), card)


def loaded(card: Card) -> Any:
    """The card's network as Keras has it, with as many outputs as the card needs. Raises BadModel."""
    return network.with_features(network.load(card), card)


def compiled(filled: Any, card: Card) -> Run:
    """`filled`: a Keras model with one output, scores, or two: scores and features."""
    if not is_backend():
        return lambda batch: _said(filled.predict_on_batch(batch))
    graph = graph_of(filled, card)
    return lambda batch: _said(graph(batch))


def is_backend() -> bool:
    """Whether Keras computes with TensorFlow in this process."""
    return bool(network.keras().backend.backend() == "tensorflow")


def graph_of(filled: Any, card: Card) -> Any:
    """A tf.function of (n, size, size, channels), n free."""
    import tensorflow

    shape = tensorflow.TensorSpec((None, card.size, card.size, card.channels), tensorflow.float32)
    return tensorflow.function(
        lambda batch: filled(batch, training=False), input_signature=[shape], autograph=False
    )


def _said(outputs: Any) -> Said:
    arrays = [np.asarray(each) for each in (outputs if isinstance(outputs, list | tuple) else [outputs])]
    return Said(arrays[0], arrays[1] if len(arrays) > 1 else None)
