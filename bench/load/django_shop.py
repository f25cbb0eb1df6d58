"""The page of ``sqlalchemy_shop`` as Django's ORM makes it, on a connection that is kept, under ATOMIC_REQUESTS."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import django
from django.conf import settings
from django.db import models, transaction

from bench.load.acting import given, serve
from bench.load.shop import PRODUCTS, VISITORS

OPTIONS = given()
_URL = urlsplit(OPTIONS.dsn)
settings.configure(
    INSTALLED_APPS=[],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": _URL.path.lstrip("/"),
            "USER": unquote(_URL.username or ""),
            "PASSWORD": unquote(_URL.password or ""),
            "HOST": _URL.hostname,
            "PORT": _URL.port,
            "CONN_MAX_AGE": None,
            "ATOMIC_REQUESTS": True,
            "OPTIONS": {key: values[0] for key, values in parse_qs(_URL.query).items()},
        }
    },
    USE_TZ=True,
)
django.setup()


class Category(models.Model):  # type: ignore[misc]  # Django has no types
    name = models.TextField()

    class Meta:
        app_label, db_table = "shop", "shop_category"


class Product(models.Model):  # type: ignore[misc]
    category = models.ForeignKey(Category, on_delete=models.CASCADE)
    name = models.TextField()
    price = models.DecimalField(max_digits=10, decimal_places=2)

    class Meta:
        app_label, db_table = "shop", "shop_product"


class Review(models.Model):  # type: ignore[misc]
    product = models.ForeignKey(Product, related_name="reviews", on_delete=models.CASCADE)
    stars = models.IntegerField()
    body = models.TextField()

    class Meta:
        app_label, db_table, ordering = "shop", "shop_review", ("id",)


class Visitor(models.Model):  # type: ignore[misc]
    name = models.TextField()
    visits = models.IntegerField()

    class Meta:
        app_label, db_table = "shop", "shop_visitor"


def page(hot: str) -> None:
    """One page; with *hot* ``1`` the same product and visitor every time."""
    with transaction.atomic():  # what ATOMIC_REQUESTS puts around a view
        _page(hot)


def _page(hot: str) -> None:
    product_id = 7 if hot == "1" else random.randint(1, PRODUCTS)
    visitor: Any = Visitor.objects.get(pk=7 if hot == "1" else random.randint(1, VISITORS))
    categories = list(Category.objects.order_by("name"))
    product: Any = Product.objects.select_related("category").prefetch_related("reviews").get(pk=product_id)
    others = Product.objects.filter(category=product.category).count()
    assert visitor.name and categories and product.reviews.all() and others


if __name__ == "__main__":
    serve({"page": page})
