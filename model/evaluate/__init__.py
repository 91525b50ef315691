"""How good is a model: on whom, against what, with which doubt."""
