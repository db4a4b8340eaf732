"""An operator's act in the admin: chosen in the list, asked about, confirmed."""

from typing import Any

from django.db.models import Model
from django.test import Client
from django.urls import reverse


def confirm_action(client: Client, model: type[Model], name: str, *rows: Model, **answers: Any) -> list[str]:
    """What the operator is told in the end."""
    page = f"admin:{model._meta.app_label}_{model._meta.model_name}"
    chosen = {"action": name, "_selected_action": [row.pk for row in rows]}
    asked = client.post(reverse(f"{page}_changelist"), chosen)
    assert (asked.status_code, asked.templates[0].name) == (200, "admin/confirm_action.html")
    assert all(str(row) in asked.content.decode() for row in rows)
    done = client.post(
        reverse(f"{page}_action", args=[name]), {"pk": chosen["_selected_action"], **answers}, follow=True
    )
    assert done.status_code == 200
    return [str(message) for message in done.context["messages"]]
