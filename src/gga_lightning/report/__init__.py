"""``gga-report``: makes tables and plots from run folders.

``runs`` finds the folders, and ``results`` reads and checks them. ``methods`` groups the runs into
rows, and ``bases`` finds the row to compare each row with. ``rules`` has the model selection rules,
``statistics`` computes cells, averages and paired differences, ``missing`` writes commands for the
missing runs, and ``paper`` has the paper's numbers. ``tables``, ``notes`` and ``tidy`` lay out the
report, ``formats`` writes it, and ``figures`` draws it.
"""
