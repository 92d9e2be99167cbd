"""The field's benchmark data sets, one a module."""
