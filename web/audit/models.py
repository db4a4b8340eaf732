"""The record of changes to nodes, keys, sessions and users. Entries are written once and never changed."""

from django.db import models

from web.audit.via import Via


class AuditEntry(models.Model):
    at = models.DateTimeField(auto_now_add=True, db_index=True)
    via = models.CharField(max_length=10, choices=Via)
    actor = models.CharField(
        max_length=150, help_text="A user of the console or of the machine, or the prefix of a key."
    )
    action = models.CharField(max_length=40, help_text="The kind of object and the action: node.drain.")
    target = models.CharField(max_length=200, help_text="The object.")
    detail = models.CharField(max_length=500, blank=True)
    succeeded = models.BooleanField(default=True)
    count = models.PositiveIntegerField(
        default=1, db_default=1, help_text="How often it happened; repetitions within an hour share one entry."
    )
    last_at = models.DateTimeField(null=True, blank=True, help_text="When it was last repeated.")

    class Meta:
        ordering = ["-at", "-id"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.actor}: {self.action} {self.target}"
