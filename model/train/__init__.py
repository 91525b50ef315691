"""Images and labels -> a model folder."""
