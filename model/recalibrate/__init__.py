"""A model folder's scores as shares: fitted on its user's images, or moved to another prevalence, as a new folder."""
