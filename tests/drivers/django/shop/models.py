from django.db import models


class Product(models.Model):
    name = models.CharField(max_length=100, unique=True)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    details = models.JSONField(default=dict)
    picture = models.BinaryField(null=True)
    added = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = (models.Index(fields=["price"], name="drv_shop_price"),)


class Sale(models.Model):
    product = models.ForeignKey(Product, on_delete=models.CASCADE, related_name="sales")
    quantity = models.IntegerField(db_index=True)
