"""Creation, rotation and revocation of join keys, node keys, and the token keys that seal connect tokens."""

import base64
import secrets
from collections.abc import Sequence
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from relaymgr.nodes.models import JoinKey, Location, RelayNode, TokenKey
from relaymgr.nodes.states import NodeState
from relaymgr.tenants.keys import new_key
from relaymgr.tenants.services import api_key_create, api_key_revoke
from web.authorization import Scope


def join_key_create(*, location: Location, lifetime: timedelta | None = None, uses: int = 1) -> str:
    """Lets `uses` nodes join at `location`. Returns the plain key; only its hash is stored."""
    new = new_key()
    lifetime = lifetime or timedelta(seconds=settings.JOIN_KEY_LIFETIME)
    JoinKey.objects.create(
        location=location,
        prefix=new.prefix,
        secret_hash=new.secret_hash,
        expires_at=timezone.now() + lifetime,
        uses_left=uses,
    )
    return new.plain


def join_key_revoke(*, join_key: JoinKey) -> bool:
    """False if the key was used up or had expired already."""
    now = timezone.now()
    return JoinKey.objects.filter(pk=join_key.pk, used_at=None, expires_at__gt=now).update(expires_at=now) == 1


def node_key_rotate(*, node: RelayNode) -> str:
    """Returns a new plain node key, for the node's state folder; the old one is revoked at once."""
    with transaction.atomic():
        old = node.key
        node.key, plain = api_key_create(tenant=None, name=f"node {node.name}", scopes=[Scope.NODE])
        node.save(update_fields=["key"])
        if old:
            api_key_revoke(key=old)
    return plain


def token_key_rotate(*, node: RelayNode) -> TokenKey:
    """A new key to seal connect tokens with. It is in use once the node holds it; the earlier keys then retire."""
    with transaction.atomic():
        return token_key_create(node)


def token_key_create(node: RelayNode) -> TokenKey:
    taken = set(node.token_keys.values_list("key_id", flat=True))
    key_id = next(key_id for key_id in iter(lambda: secrets.randbits(32), None) if key_id and key_id not in taken)
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    return TokenKey.objects.create(node=node, key_id=key_id, key=key)


def token_keys_confirm(node: RelayNode, key_ids: Sequence[int]) -> None:
    """Stores which keys the node holds. The newest of them seals from now on; earlier ones only open."""
    now = timezone.now()
    if not node.token_keys.filter(key_id__in=key_ids, confirmed_at=None).update(confirmed_at=now):
        return
    newest = node.token_keys.exclude(confirmed_at=None).order_by("-created_at", "-pk")[:1].get()
    older = node.token_keys.filter(created_at__lte=newest.created_at, retired_at=None).exclude(pk=newest.pk)
    older.update(retired_at=now)


def token_keys_renew() -> int:
    """Rotates keys that are past their lifetime and deletes those whose last token has expired; returns how many it
    rotated."""
    now = timezone.now()
    expired = now - timedelta(seconds=settings.TOKEN_KEY_OVERLAP)
    TokenKey.objects.filter(retired_at__lte=expired).delete()
    due = now - timedelta(seconds=settings.TOKEN_KEY_LIFETIME)
    young = TokenKey.objects.filter(node=OuterRef("pk"), created_at__gt=due)
    nodes = RelayNode.objects.exclude(Exists(young)).exclude(state=NodeState.LOST)
    for node in nodes:
        token_key_rotate(node=node)
    return len(nodes)
