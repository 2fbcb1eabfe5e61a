"""Where the loop runs: in this process (``local``) or on Ray Train workers (``ray_train``)."""
