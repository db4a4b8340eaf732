"""Everything here that reads what another wrote, as functions of bytes that raise for a fault only."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.fuzz import direct_path_targets as direct
from tests.fuzz import document_targets as documents
from tests.fuzz import packet_targets as packets
from tests.fuzz import path_target as paths
from tests.fuzz.inputs import Form


@dataclass(frozen=True)
class Target:
    """`run` raises when the input shows a fault. `seeds` are written to the corpus once, by `--write-seeds`.
    `missing`: why it cannot be run here, empty when it can."""

    name: str
    form: Form
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    missing: Callable[[], str] = lambda: ""

    def __str__(self) -> str:
        return self.name


TARGETS = {
    target.name: target
    for target in (
        Target("native", "script", packets.native, packets.native_seeds),
        Target("native_authentic", "script", packets.native_authentic, packets.native_authentic_seeds),
        Target("edgegap", "script", packets.edgegap, packets.edgegap_seeds),
        Target("packet_paths", "script", paths.packet_paths, paths.packet_paths_seeds, paths.missing),
        Target("stun", "bytes", packets.stun_binding, packets.stun_seeds),
        Target("client_decoders", "bytes", packets.client_decoders, packets.client_decoders_seeds),
        Target("client_connection", "script", packets.client_connection, packets.client_connection_seeds),
        Target("rendezvous", "bytes", direct.rendezvous, direct.rendezvous_seeds),
        Target("direct_paths", "script", direct.direct_paths, direct.direct_paths_seeds),
        Target("probing", "script", packets.probing, packets.probing_seeds),
        Target("fragments", "script", packets.fragments, packets.fragments_seeds),
        Target("connect_token", "bytes", packets.connect_token, packets.connect_token_seeds),
        Target("probe_proof", "bytes", documents.probe_proof, documents.probe_proof_seeds),
        Target("grant", "json", documents.grant, documents.grant_seeds),
        Target("control_api", "json", documents.control_api, documents.control_api_seeds),
        Target("manager_answer", "json", documents.manager_answer, documents.manager_answer_seeds),
        Target("node_state", "bytes", documents.node_state, documents.node_state_seeds),
        Target("node_report", "json", documents.node_report, documents.node_report_seeds),
        Target("heartbeat", "json", documents.heartbeat, documents.heartbeat_seeds),
        Target("join", "json", documents.join, documents.join_seeds),
        Target("session_request", "json", documents.session_request, documents.session_request_seeds),
        Target("ticket_request", "json", documents.ticket_request, documents.ticket_request_seeds),
        Target("cursor", "json", documents.cursor, documents.cursor_seeds),
        Target("profile", "json", documents.profile, documents.profile_seeds),
        Target("broker_message", "json", documents.broker_message, documents.broker_message_seeds),
    )
}


def quieted(run: Callable[[bytes], None], content: bytes) -> None:
    """Without the log lines that each bad input makes."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        run(content)
    finally:
        logging.disable(before)
