"""``gga-report``: run folders to tables and plots.

``runs`` finds the folders and ``results`` checks what they hold; ``methods`` tells which runs make
a row; ``rules`` has the model selection rules, ``statistics`` the cells, averages and paired
differences, ``missing`` the commands that fill gaps, ``paper`` the paper's printed numbers;
``tables``, ``notes`` and ``tidy`` say it, ``formats`` writes it, ``figures`` draws it.
"""
