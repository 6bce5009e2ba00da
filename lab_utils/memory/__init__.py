"""How many bytes a training step takes, estimated and measured (page 07)."""

from .budget import GPUS, advice, room_bytes
from .free import free_memory_bytes
from .peak import measured_peak, tensor_peak, tensor_trace
from .saved import saved_bytes
from .step import METHODS, MemoryEstimate, estimate
from .timeline import Moment, timeline

__all__ = [
    "GPUS", "METHODS", "MemoryEstimate", "Moment", "advice", "estimate", "free_memory_bytes", "measured_peak",
    "room_bytes", "saved_bytes", "tensor_peak", "tensor_trace", "timeline",
]  # fmt: skip
