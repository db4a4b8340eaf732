from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("audit", "0002_command")]

    operations = [
        migrations.AlterField(
            model_name="auditentry",
            name="via",
            field=models.CharField(
                choices=[("admin", "Admin"), ("relayctl", "Relayctl"), ("command", "manage.py")], max_length=10
            ),
        ),
    ]
