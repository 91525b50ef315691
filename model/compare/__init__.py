"""Two models on the same images: what is better by how much, and whether chance could have done it."""
