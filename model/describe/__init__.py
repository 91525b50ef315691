"""hilum model describe: what a model is and what was measured of it, as a model card and in the form of a 510(k).

Nothing here is typed by hand but words: every figure comes from card.toml, from an evaluation's report.json, from a
training run's folder or from the code itself; published figures carry their citation, and targets of the plans say that
they are targets. What is not known is said to be not known.

    sources.py -> card_page.py                                                     -> markdown.py
               -> general.py design.py trained.py databases.py validation.py …     -> markdown.py html.py pdf.py
"""
