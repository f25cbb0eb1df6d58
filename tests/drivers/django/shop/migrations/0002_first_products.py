# ruff: noqa: RUF012  (Django's own form)

from django.db import migrations


def add(apps, _schema_editor):
    apps.get_model("drv_shop", "Product").objects.get_or_create(name="from a migration", defaults={"price": 1})


class Migration(migrations.Migration):
    dependencies = [("drv_shop", "0001_initial")]
    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
