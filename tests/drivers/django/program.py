"""Django's ORM over psycopg 3: migrations of a tiny application, transactions, savepoints, server-side cursors.

Django holds one configuration per process, so the integration test runs this program as a process.
Nothing is set for a pooler: DISABLE_SERVER_SIDE_CURSORS stays off, connections are kept (CONN_MAX_AGE).
"""

from __future__ import annotations

import datetime as dt
import os
from urllib.parse import unquote, urlsplit

import django
from django.conf import settings
from django.core.management import call_command
from django.db import IntegrityError, OperationalError, connection, connections, models, transaction

from tests.drivers.common import Program, in_threads, main, raises

CLIENTS = 6
ROUNDS = 8

parts = urlsplit(os.environ["DATABASE_URL"])
settings.configure(
    INSTALLED_APPS=["django.contrib.postgres", "tests.drivers.django.shop"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.path.lstrip("/"),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": parts.hostname,
            "PORT": parts.port,
            "CONN_MAX_AGE": 60,
            "CONN_HEALTH_CHECKS": True,
        }
    },
    USE_TZ=True,
    TIME_ZONE="Europe/Paris",
)

django.setup()

from tests.drivers.django.shop.models import Product  # noqa: E402  (models need the settings above)


def migrates(_url: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("drop table if exists drv_shop_sale, drv_shop_product, django_migrations cascade")
    call_command("migrate", verbosity=0)
    call_command("migrate", "drv_shop", "0001", verbosity=0)
    call_command("migrate", verbosity=0)
    tables = connection.introspection.table_names()
    assert {"drv_shop_product", "drv_shop_sale", "django_migrations"} <= set(tables)
    with connection.cursor() as cursor:
        assert "product_id" in connection.introspection.get_relations(cursor, "drv_shop_sale")
    assert Product.objects.filter(name="from a migration").exists()


def reads_and_writes(_url: str) -> None:
    Product.objects.all().delete()
    Product.objects.bulk_create(
        [
            Product(name=f"product {n}", price=n, details={"n": n, "deep": [None]}, picture=bytes([n]))
            for n in range(200)
        ]
    )
    product = Product.objects.get(name="product 7")
    assert (product.details, bytes(product.picture), product.added.tzinfo) == (
        {"n": 7, "deep": [None]},
        b"\x07",
        dt.UTC,
    )
    assert Product.objects.filter(details__n__gte=150).count() == 50
    product.sales.create(quantity=3)
    got, created = Product.objects.get_or_create(name="product 7", defaults={"price": 0})
    assert (got.pk, created) == (product.pk, False)
    Product.objects.update_or_create(name="product 8", defaults={"price": 99})
    assert Product.objects.aggregate(total=models.Sum("sales__quantity")) == {"total": 3}
    assert Product.objects.select_for_update().filter(pk=product.pk) is not None
    assert Product.objects.filter(name__startswith="product 19").update(price=models.F("price") + 1) == 11
    assert Product.objects.in_bulk([product.pk])[product.pk].price == 7


def commits_and_rolls_back(_url: str) -> None:
    before = Product.objects.count()
    with transaction.atomic():
        Product.objects.create(name="atomic", price=1)
        with raises(IntegrityError), transaction.atomic():
            Product.objects.create(name="inner", price=1)
            Product.objects.create(name="atomic", price=2)
        assert not Product.objects.filter(name="inner").exists()
        done: list[int] = []
        transaction.on_commit(lambda: done.append(1))
    assert done == [1]
    with raises(ZeroDivisionError), transaction.atomic():
        Product.objects.create(name="never", price=1)
        raise ZeroDivisionError
    with transaction.atomic():
        locked = Product.objects.select_for_update().get(name="atomic")
        locked.price += 1
        locked.save()
    assert Product.objects.count() == before + 1


def iterates_with_server_side_cursors(_url: str) -> None:
    assert not connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    seen = 0
    for product in Product.objects.order_by("pk").iterator(chunk_size=20):  # a WITH HOLD cursor in autocommit
        seen += 1
        if seen % 50 == 0:
            product.save()  # other statements in between
    assert seen == Product.objects.count()
    with transaction.atomic():
        assert seen == sum(1 for _ in Product.objects.iterator(chunk_size=33))
    for n, _ in enumerate(Product.objects.iterator(chunk_size=10)):
        if n == 15:
            break  # left before its end


def keeps_its_settings(_url: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("show timezone")
        assert cursor.fetchone() == ("UTC",)
        cursor.execute("set statement_timeout = 54321")
        for _ in range(4):
            cursor.execute("show statement_timeout")
            assert cursor.fetchone() == ("54321ms",)
        cursor.execute("reset statement_timeout")


def shares_servers(_url: str) -> None:
    def client(number: int) -> None:
        try:
            for n in range(ROUNDS):
                with transaction.atomic():
                    Product.objects.create(name=f"client {number} {n}", price=number)
                    transaction.set_rollback(bool(n % 2))
                assert Product.objects.filter(name__startswith=f"client {number} ").count() == n // 2 + 1
        finally:
            connections.close_all()

    in_threads(CLIENTS, client)


def reconnects(_url: str) -> None:
    with raises(OperationalError), connection.cursor() as cursor:
        cursor.execute("select pg_terminate_backend(pg_backend_pid())")
        cursor.execute("select 1")
    connections.close_all()
    assert Product.objects.exists()


def leaves_nothing(_url: str) -> None:
    call_command("migrate", "drv_shop", "zero", verbosity=0)
    with connection.cursor() as cursor:
        assert not [name for name in connection.introspection.table_names(cursor) if name.startswith("drv_shop")]
        cursor.execute("drop table django_migrations")
    connections.close_all()


PROGRAM = Program(
    driver="Django",
    version=django.get_version,
    checks=(
        migrates,
        reads_and_writes,
        commits_and_rolls_back,
        iterates_with_server_side_cursors,
        keeps_its_settings,
        shares_servers,
        reconnects,
        leaves_nothing,
    ),
)

if __name__ == "__main__":
    main(PROGRAM)
