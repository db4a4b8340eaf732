"""The changes of telemetry that other apps and tasks may call."""

from relaymgr.telemetry.leases import lease_held, lease_release, lease_take
from relaymgr.telemetry.model_learning import latency_model_fit, prefix_legs_prune
from relaymgr.telemetry.probing.events import events_claim
from relaymgr.telemetry.probing.leg_samples import leg_samples_delete
from relaymgr.telemetry.probing.path_samples import path_samples_delete
from relaymgr.telemetry.probing.round import ROUND_LEASE, ROUND_LEASE_NAME, probe_round
from relaymgr.telemetry.process_exits import process_exits_record
from relaymgr.telemetry.retention import samples_prune, samples_roll_up

__all__ = [
    "ROUND_LEASE",
    "ROUND_LEASE_NAME",
    "events_claim",
    "latency_model_fit",
    "lease_held",
    "lease_release",
    "lease_take",
    "leg_samples_delete",
    "path_samples_delete",
    "prefix_legs_prune",
    "probe_round",
    "process_exits_record",
    "samples_prune",
    "samples_roll_up",
]
