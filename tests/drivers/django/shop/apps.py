from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "tests.drivers.django.shop"
    label = "drv_shop"
    default_auto_field = "django.db.models.BigAutoField"
