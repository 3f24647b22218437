"""Devices that are not there, to compile for: TPU slices, GPU hosts, several CPUs."""

import os

import jax
from jax.experimental import topologies

from lungseg_jax.runtime import native_output
from lungseg_jax.runtime.ahead_of_time.chips import CHIPS
from lungseg_jax.runtime.ahead_of_time.topology_names import EXAMPLES, Topology
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.extras import require_library

# libtpu would otherwise ask the cloud which machine this is, and lock out other processes.
WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def devices_of(topology: Topology) -> list[jax.Device]:
    """Return its devices, which can be compiled for and nothing else.

    Must precede any use of a device in this process, which then uses the CPU.

    Raises:
      UserError: the compiler for them is not installed, or does not know the shape.
    """
    jax.config.update("jax_platforms", "cpu")
    platform, asked = topology.chip.platform, f"--topology={topology}"
    if platform == "cpu":
        (count,) = topology.shape
        if count > 1:
            jax.config.update("jax_num_cpu_devices", count)
        return jax.devices()[:count]
    try:
        if platform == "tpu":
            require_library("libtpu", extra="tpu", needed_by=asked)
            return _tpus(topology)
        require_library("jax_cuda13_plugin", extra="gpu", needed_by=asked)
        return _gpus(topology.shape[0])
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as e:
        raise UserError(
            f"{asked} was refused by the compiler: {str(e).splitlines()[0]}",
            rule=f"a shape that exists, such as {EXAMPLES}.",
        ) from e


def _tpus(topology: Topology) -> list[jax.Device]:
    for name, value in WITHOUT_TPU.items():
        os.environ.setdefault(name, value)
    is_single = topology.shape == (1,)
    name = f"{topology.kind}:{topology.chip.host}" if is_single else str(topology)
    options = {"chip_config_name": "megacore"} if topology.kind == "v4" else {}
    with native_output.discarded():  # it looks for the TPU that is not there
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=name, **options
        )
    return described.devices[:1] if is_single else described.devices


def _gpus(count: int) -> list[jax.Device]:
    per_host = int(CHIPS["h100"].host)
    if count > per_host and count % per_host:
        raise ValueError(f"{count} GPUs are not whole hosts of {per_host}")
    hosts = max(1, count // per_host)
    described = topologies.get_topology_desc(
        "h100",
        platform="cuda",
        target_config=H100,
        topology=f"1x{hosts}x{count // hosts}",
    )
    return described.devices


# An H100 SXM in the words of XLA's GpuTargetConfigProto.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
