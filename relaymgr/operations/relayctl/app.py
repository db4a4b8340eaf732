"""`relayctl` and its commands, in the order in which help lists them."""

import typer

from .commands import (
    audit,
    cors,
    doctor,
    explain,
    keys,
    locations,
    nodes,
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
    help="Look at the fleet and act on it. Exit status: 0 done, 1 refused or failed, 2 not understood.",
)

LOOK, FLEET, SESSIONS, KEYS = "Look", "Fleet", "Sessions", "Tenants and keys"

app.command("status", rich_help_panel=LOOK)(status.status)
app.command("doctor", rich_help_panel=LOOK)(doctor.doctor)
app.command("tail", rich_help_panel=LOOK)(tail.tail)
app.command("audit", rich_help_panel=LOOK)(audit.audit)

app.command("nodes", rich_help_panel=FLEET)(nodes.nodes)
app.command("drain", rich_help_panel=FLEET)(nodes.drain)
app.command("undrain", rich_help_panel=FLEET)(nodes.undrain)
app.command("remove", rich_help_panel=FLEET)(nodes.remove)
app.command("locations", rich_help_panel=FLEET)(locations.locations)
app.command("join-key", rich_help_panel=FLEET)(locations.join_key)

app.command("sessions", rich_help_panel=SESSIONS)(sessions.sessions)
app.command("session", rich_help_panel=SESSIONS)(sessions.session)
app.command("explain", rich_help_panel=SESSIONS)(explain.explain)
app.command("revoke", rich_help_panel=SESSIONS)(sessions.revoke)
app.command("delete", rich_help_panel=SESSIONS)(sessions.delete)

app.command("player-export", rich_help_panel=SESSIONS)(players.player_export)
app.command("player-erase", rich_help_panel=SESSIONS)(players.player_erase)

app.command("tenants", rich_help_panel=KEYS)(tenants.tenants)
app.command("cors", rich_help_panel=KEYS)(cors.cors)
app.command("keys", rich_help_panel=KEYS)(keys.keys)
app.command("key-revoke", rich_help_panel=KEYS)(keys.key_revoke)

app.command("reference", hidden=True)(reference.reference)
