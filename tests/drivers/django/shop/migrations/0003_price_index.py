# ruff: noqa: RUF012  (Django's own form)

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("drv_shop", "0002_first_products")]
    operations = [AddIndexConcurrently("product", models.Index(fields=["price"], name="drv_shop_price"))]
