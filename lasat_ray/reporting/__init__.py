"""A report: runs are read (``study``), their nets asked (``nets``), drawn (``figures``), set (``page``)."""
