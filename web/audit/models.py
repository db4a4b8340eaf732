"""Who did what to the fleet, its keys and its sessions. Written once, never changed."""

from django.db import models

from web.audit.via import Via


class AuditEntry(models.Model):
    at = models.DateTimeField(auto_now_add=True, db_index=True)
    via = models.CharField(max_length=10, choices=Via)
    actor = models.CharField(max_length=150, help_text="A user of the admin, of the machine, or a key's prefix.")
    action = models.CharField(max_length=40, help_text="What was done to what kind of thing: node.drain.")
    target = models.CharField(max_length=200, help_text="To which.")
    detail = models.CharField(max_length=500, blank=True)
    succeeded = models.BooleanField(default=True)
    count = models.PositiveIntegerField(
        default=1, db_default=1, help_text="How often, where repetitions within an hour are one entry."
    )
    last_at = models.DateTimeField(null=True, blank=True, help_text="When it was last repeated.")

    class Meta:
        ordering = ["-at", "-id"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.actor}: {self.action} {self.target}"
