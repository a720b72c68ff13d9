"""`[runtime]`: how this machine is used, and what it tells of itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from illume_loop.config.section import Section


class RuntimeSettings(Section):
    """How this machine is used.

    Only three touch results: `threads` and `device` in the last bits of sums, `weights` by what it rounds.
    """

    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0 is one for each core, or OMP_NUM_THREADS.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N.")
    weights: Literal["stored", "bfloat16"] = Field(
        "stored",
        description="Precision in which models draw and read; bfloat16 halves the memory of a trained version, and "
        "rounds most of a small update away.",
    )
    max_attempts: int = Field(3, ge=1, le=100, description="Attempts at a unit before it is given up.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe line logged.")
    log_format: Literal["text", "json"] = Field("text", description="Lines of text, or JSON with run, round and unit.")
    metrics_address: str = Field(
        "",
        pattern=r"^([\w.-]+:[1-9]\d{0,4})?$",
        description="host:port at which Prometheus reads metrics, or the first free port above; empty is none.",
    )
    traces_url: str = Field(
        "",
        pattern=r"^(https?://[^\s@]+)?$",
        description="OTLP endpoint for OpenTelemetry traces, such as http://host:4318; empty is none.",
    )
    host_name: str = Field(
        "",
        pattern=r"^[\w.:-]{0,64}$",
        description="Name of this host in `workers ls`; empty is the one that the system has.",
    )
    health_file: str = Field(
        "",
        description="File in which a worker or coordinator keeps its health, for a container's check; empty is none.",
    )
