"""A page of a small shop as SQLAlchemy 2's ORM makes it: categories, a product, its reviews, what else there is, and who looks.

``page`` is a request of a web program that keeps its engine: a session from the pool, five statements, the session closed.
"""

from __future__ import annotations

import random
from decimal import Decimal

import sqlalchemy
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from bench.load.acting import given, serve
from bench.load.shop import PRODUCTS, VISITORS


class Base(DeclarativeBase):
    """What all tables share: nothing."""


class Category(Base):
    __tablename__ = "shop_category"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Product(Base):
    __tablename__ = "shop_product"
    id: Mapped[int] = mapped_column(primary_key=True)
    category_id: Mapped[int] = mapped_column(ForeignKey("shop_category.id"))
    name: Mapped[str]
    price: Mapped[Decimal]
    category: Mapped[Category] = relationship(lazy="joined", innerjoin=True)
    reviews: Mapped[list[Review]] = relationship(order_by="Review.id")


class Review(Base):
    __tablename__ = "shop_review"
    id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("shop_product.id"))
    stars: Mapped[int]
    body: Mapped[str]


class Visitor(Base):
    __tablename__ = "shop_visitor"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    visits: Mapped[int]


OPTIONS = given()
ENGINE = sqlalchemy.create_engine(
    OPTIONS.dsn.replace("postgresql://", "postgresql+psycopg://"),
    connect_args={} if OPTIONS.keep_statements else {"prepare_threshold": None},
)


def page(hot: str) -> None:
    """One page; with *hot* ``1`` the same product and visitor every time."""
    product_id = 7 if hot == "1" else random.randint(1, PRODUCTS)
    visitor_id = 7 if hot == "1" else random.randint(1, VISITORS)
    with Session(ENGINE) as session:
        visitor = session.get_one(Visitor, visitor_id)
        categories = session.scalars(select(Category).order_by(Category.name)).all()
        # Two statements: the product with its category, then its reviews.
        product = session.get_one(Product, product_id, options=[selectinload(Product.reviews)])
        others = session.scalar(select(func.count()).where(Product.category_id == product.category_id))
        assert visitor.name and categories and product.reviews and others


if __name__ == "__main__":
    serve({"page": page})
