"""Plain training, the tables' first row: no attack at all."""

from __future__ import annotations

from lasat_ray.methods.base import known_method
from lasat_ray.methods.pgd_at import loss

METHOD = known_method("clean", loss)
