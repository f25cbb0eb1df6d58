"""The tables of the shop whose page the ORMs make, in SQL, so that both read the same."""

from __future__ import annotations

PRODUCTS = 1_000
VISITORS = 1_000

TABLES = f"""
CREATE TABLE IF NOT EXISTS shop_category (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE IF NOT EXISTS shop_product (id int PRIMARY KEY, category_id int NOT NULL REFERENCES shop_category,
  name text NOT NULL, price numeric(10, 2) NOT NULL);
CREATE INDEX IF NOT EXISTS shop_product_category ON shop_product (category_id);
CREATE TABLE IF NOT EXISTS shop_review (id int PRIMARY KEY, product_id int NOT NULL REFERENCES shop_product,
  stars int NOT NULL, body text NOT NULL);
CREATE INDEX IF NOT EXISTS shop_review_product ON shop_review (product_id);
CREATE TABLE IF NOT EXISTS shop_visitor (id int PRIMARY KEY, name text NOT NULL, visits int NOT NULL);
INSERT INTO shop_category SELECT n, 'category ' || n FROM generate_series(1, 20) n ON CONFLICT DO NOTHING;
INSERT INTO shop_product SELECT n, n % 20 + 1, 'product ' || n, n FROM generate_series(1, {PRODUCTS}) n
  ON CONFLICT DO NOTHING;
INSERT INTO shop_review SELECT n, n % {PRODUCTS} + 1, n % 5 + 1, repeat('as described ', 8)
  FROM generate_series(1, {5 * PRODUCTS}) n ON CONFLICT DO NOTHING;
INSERT INTO shop_visitor SELECT n, 'visitor ' || n, 0 FROM generate_series(1, {VISITORS}) n ON CONFLICT DO NOTHING;
GRANT SELECT, INSERT, UPDATE, DELETE ON shop_category, shop_product, shop_review, shop_visitor TO PUBLIC;
ANALYZE shop_category, shop_product, shop_review, shop_visitor;
"""
