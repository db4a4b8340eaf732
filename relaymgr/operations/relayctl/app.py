"""`relayctl` and its commands, in the order of `relayctl --help`."""

import typer

from .commands import (
    audit,
    cors,
    doctor,
    explain,
    keys,
    locations,
    nodes,
    paths,
    players,
    reference,
    sessions,
    status,
    tail,
    tenants,
)
from .output import Commands

app = typer.Typer(
    cls=Commands,
    name="relayctl",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Inspect and operate the fleet. Exit status: 0 success, 1 refused or failed, 2 invalid command line.",
)

MONITORING, FLEET, SESSIONS, TENANTS = "Monitoring", "Fleet", "Sessions and players", "Tenants and keys"

app.command("status", rich_help_panel=MONITORING)(status.status)
app.command("doctor", rich_help_panel=MONITORING)(doctor.doctor)
app.command("tail", rich_help_panel=MONITORING)(tail.tail)
app.command("audit", rich_help_panel=MONITORING)(audit.audit)

app.command("nodes", rich_help_panel=FLEET)(nodes.nodes)
app.command("drain", rich_help_panel=FLEET)(nodes.drain)
app.command("undrain", rich_help_panel=FLEET)(nodes.undrain)
app.command("remove", rich_help_panel=FLEET)(nodes.remove)
app.command("locations", rich_help_panel=FLEET)(locations.locations)
app.command("join-key", rich_help_panel=FLEET)(locations.join_key)

app.command("sessions", rich_help_panel=SESSIONS)(sessions.sessions)
app.command("session", rich_help_panel=SESSIONS)(sessions.session)
app.command("explain", rich_help_panel=SESSIONS)(explain.explain)
app.command("paths", rich_help_panel=SESSIONS)(paths.paths)
app.command("direct-mode", rich_help_panel=SESSIONS)(sessions.direct_mode)
app.command("revoke", rich_help_panel=SESSIONS)(sessions.revoke)
app.command("delete", rich_help_panel=SESSIONS)(sessions.delete)
app.command("player-export", rich_help_panel=SESSIONS)(players.player_export)
app.command("player-erase", rich_help_panel=SESSIONS)(players.player_erase)

app.command("tenants", rich_help_panel=TENANTS)(tenants.tenants)
app.command("cors", rich_help_panel=TENANTS)(cors.cors)
app.command("keys", rich_help_panel=TENANTS)(keys.keys)
app.command("key-revoke", rich_help_panel=TENANTS)(keys.key_revoke)

app.command("reference", hidden=True)(reference.reference)
