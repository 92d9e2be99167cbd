"""``gga-report``: run folders to tables and plots.

``runs`` finds the folders and ``results`` checks what they hold; ``methods`` tells which runs make
a row, and ``bases`` which row it is compared with; ``rules`` has the model selection rules,
``statistics`` the cells, averages and paired differences, ``missing`` the commands that fill gaps,
``paper`` the paper's printed numbers; ``tables``, ``notes`` and ``tidy`` lay it out, ``formats``
writes it, ``figures`` draws it.
"""
