"""The test session: eight CPU devices, no broadcasting of ranks, reproducible properties."""

import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Read when NumPy loads. Two workers on two cores: more BLAS threads than one only spin against each
# other (a third more CPU time).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Half of the time goes into compiling programs that run once. Machine code is generated without LLVM's optimisations
# and, where that flag is known (an unknown one ends the process), by the emitters that compile twice as fast. What XLA
# itself rewrites stays on.
fast = ["--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):
    fast += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ["XLA_FLAGS"] = " ".join([*fast, os.environ.get("XLA_FLAGS", "")])
# Compilation is most of the time of a second run. One folder per worker, because JAX writes entries
# without a lock; in the environment, so that the processes that tests start share it.
worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
cache = Path(__file__).parents[1] / ".cache" / "jax" / worker
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)  # workers inherit the controller's
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

import hypothesis
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)  # only counts before the first use of a device
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "infojax",
    derandomize=True,
    deadline=None,  # the first example of a shape compiles
    max_examples=25,
    database=None,
)
hypothesis.settings.load_profile("infojax")


# The files of these take minutes: with two workers none of them should be the last one.
FIRST = ("multihost", "tpu_aot", "tasks", "train", "test_main.py", "evaluate", "sharded")


def pytest_collection_modifyitems(items):
    places = {name: i for i, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.relative_to(Path(__file__).parent).parts[0], len(FIRST)))


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_file():
    """Compiled programs go with the file that needed them: the kernel allows a process 65,530 mappings, and XLA on CPU
    dies without a word when it has used them up."""
    yield
    jax.clear_caches()
