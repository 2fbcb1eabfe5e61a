from types import ModuleType

from lasat_ray.api.attacking import attack as attack
from lasat_ray.api.evaluating import evaluate as evaluate
from lasat_ray.api.explaining import explain as explain
from lasat_ray.api.loading import load_model as load_model
from lasat_ray.api.reporting import report as report
from lasat_ray.api.settings import recipe as recipe
from lasat_ray.api.sweeping import sweep as sweep
from lasat_ray.api.training import train as train
from lasat_ray.errors import UsageError as UsageError
from lasat_ray.errors import UserError as UserError

__version__: str
ENV_ID: str
API: dict[str, str]
ERRORS: tuple[str, ...]

class _Package(ModuleType): ...
