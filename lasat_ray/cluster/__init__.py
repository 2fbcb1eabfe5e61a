"""Where the loop runs: in this process (``local``) or on Ray Train workers (``ray_train``)."""

import os

# Clusters of Ray 2.60 want their token, and a driver offers it only in this mode, which Ray reads
# when it is first imported. Who set the variable keeps what they set.
os.environ.setdefault("RAY_AUTH_MODE", "token")
