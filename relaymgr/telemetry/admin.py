"""The console's pages for the reports of the nodes."""

from django.contrib import admin

from relaymgr.telemetry.models import (
    Lease,
    LegSample,
    NodeEvent,
    NodeSample,
    NodeSummary,
    PathSample,
    PeerLegs,
    PeerPath,
    PrefixLeg,
    ProcessExit,
    StoredLatencyModel,
)
from web.admin.base import ReadOnlyAdmin


@admin.register(NodeSample)
class NodeSampleAdmin(ReadOnlyAdmin):
    list_display = ("node", "at", "probe_ms", "cpu", "sessions", "seats", "connected")
    list_filter = ("node", "at")
    list_select_related = ("node",)
    search_fields = ("node__name",)


@admin.register(LegSample)
class LegSampleAdmin(ReadOnlyAdmin):
    list_display = ("session_id", "seat", "node", "at", "rtt_ms", "jitter_ms", "loss")
    list_filter = ("node", "at")
    list_select_related = ("node",)
    search_fields = ("=session_id",)


@admin.register(PeerPath)
class PeerPathAdmin(ReadOnlyAdmin):
    list_display = ("session_id", "seat", "peer", "path", "reason", "since", "rtt_ms", "relay_rtt_ms", "bytes", "at")
    list_filter = ("path", "reason", "node", "at")
    search_fields = ("=session_id",)


@admin.register(PathSample)
class PathSampleAdmin(ReadOnlyAdmin):
    list_display = ("session_id", "seat", "peer", "at", "path", "reason", "rtt_ms", "relay_rtt_ms", "loss", "bytes")
    list_filter = ("path", "reason", "node", "at")
    search_fields = ("=session_id",)


@admin.register(NodeSummary)
class NodeSummaryAdmin(ReadOnlyAdmin):
    list_display = (
        "node",
        "at",
        "seconds",
        "samples",
        "probe_ms",
        "cpu",
        "cpu_max",
        "connected_max",
    )
    list_filter = ("seconds", "node", "at")
    list_select_related = ("node",)
    search_fields = ("node__name",)


@admin.register(PrefixLeg)
class PrefixLegAdmin(ReadOnlyAdmin):
    list_display = ("prefix", "node", "at", "players", "ms", "jitter_ms", "loss")
    list_filter = ("node", "at")
    list_select_related = ("node",)
    search_fields = ("prefix__startswith",)


@admin.register(PeerLegs)
class PeerLegsAdmin(ReadOnlyAdmin):
    list_display = ("node", "at")
    list_select_related = ("node",)
    search_fields = ("node__name",)


@admin.register(StoredLatencyModel)
class StoredLatencyModelAdmin(ReadOnlyAdmin):
    list_display = ("at",)


@admin.register(NodeEvent)
class NodeEventAdmin(ReadOnlyAdmin):
    """A row is applied and deleted within a second. If rows accumulate, the worker of the queue `session` is stuck."""

    list_display = ("at", "node", "session_id", "seat", "kind", "dialect", "reason")
    list_filter = ("kind", "node")
    list_select_related = ("node",)
    search_fields = ("=session_id",)


@admin.register(Lease)
class LeaseAdmin(ReadOnlyAdmin):
    list_display = ("name", "owner", "until")
    search_fields = ("name",)


@admin.register(ProcessExit)
class ProcessExitAdmin(ReadOnlyAdmin):
    list_display = ("at", "supervisor", "process", "status", "uptime_s")
    list_filter = ("supervisor", "process", "at")
    search_fields = ("supervisor", "process")
