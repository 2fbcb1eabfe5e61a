"""Types of settings that the command line spells in the field's own way: budgets and grids."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from lasat_ray.config.units import format_budget, format_grid, parse_budget, parse_grid

Budget = Annotated[
    float,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="N/255",
        instance_from_str=lambda args: parse_budget(args[0]),
        is_instance=lambda value: isinstance(value, (int, float)),
        str_from_instance=lambda value: [format_budget(value)],
    ),
]
GridSpec = Annotated[
    dict[str, tuple[float, ...]],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="'eps=3..15/255 ...'",
        instance_from_str=lambda args: parse_grid(args[0]),
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [format_grid(value)],
    ),
    arg(help_behavior_hint=""),
]
