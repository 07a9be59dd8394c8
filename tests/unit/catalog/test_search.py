"""Finding tables by what is known of them."""

import pytest

from lakehouse.errors import LakehouseError


@pytest.fixture
def shop(lake):
    lake.sql("CREATE SCHEMA sales; CREATE SCHEMA archive")
    lake.sql("CREATE TABLE orders (id INTEGER, customer_name VARCHAR, Größe DOUBLE)")
    lake.sql("CREATE TABLE sales.order_lines (order_id INTEGER, price DECIMAL(10,2))")
    lake.sql("CREATE TABLE sales.customers (id INTEGER, name VARCHAR)")
    lake.sql('CREATE TABLE archive."odd orders" (x INTEGER)')
    lake.sql("CREATE VIEW expensive AS SELECT price FROM sales.order_lines WHERE price > 100")
    lake.catalog.table("sales.customers").set_comment("people who bought something, since 1999")
    lake.catalog.table("orders").set_comment("ship's length in metres", column="Größe")
    lake.catalog.table("orders").set_tag("owner", "Finance")
    return lake


def names(hits):
    return [hit.name for hit in hits]


def matched(hit):
    return [(match.where, match.text) for match in hit.matches]


def test_names_first_exact_then_beginning_then_inside(shop):
    assert names(shop.catalog.search("orders")) == ["orders", 'archive."odd orders"']
    assert names(shop.catalog.search("ORDER"))[:2] == ["orders", "sales.order_lines"]
    assert matched(shop.catalog.search("orders")[0])[0] == ("name", "orders")


def test_every_place_is_looked_into(shop):
    for text, name, where, found in (
        ("customer_na", "orders", "column", "customer_name"),
        ("bought", "sales.customers", "comment", "people who bought something, since 1999"),
        ("metres", "orders", "column comment", "Größe: ship's length in metres"),
        ("finance", "orders", "tag", "owner=Finance"),
        ("größe", "orders", "column", "Größe"),
        ("ship's", "orders", "column comment", "Größe: ship's length in metres"),
    ):
        (hit,) = shop.catalog.search(text)
        assert (hit.kind, hit.name) == ("table", name)
        assert matched(hit)[0] == (where, found)
    view = next(hit for hit in shop.catalog.search("price") if hit.kind == "view")
    assert matched(view) == [("query", view.matches[0].text)]
    assert "price" in view.matches[0].text
    kinds = {(hit.kind, hit.name) for hit in shop.catalog.search("sales")}
    assert kinds >= {("schema", "sales"), ("table", "sales.customers"), ("table", "sales.order_lines")}


def test_all_words_must_match(shop):
    assert names(shop.catalog.search("name finance")) == ["orders"]
    assert shop.catalog.search("name finance nowhere") == []
    assert names(shop.catalog.search("sales id price")) == ["sales.order_lines"]


def test_near_misses_count_when_nothing_matches(shop):
    (hit,) = shop.catalog.search("cusotmers")
    assert hit.name == "sales.customers"
    assert "orders" in names(shop.catalog.search("custmer_name"))
    assert shop.catalog.search("qqqqqq") == []


def test_what_is_gone_is_not_found(shop):
    shop.sql("ALTER TABLE orders RENAME COLUMN customer_name TO buyer")
    assert shop.catalog.search("customer_name") == []
    assert names(shop.catalog.search("buyer")) == ["orders"]
    shop.catalog.drop("sales.customers")
    assert shop.catalog.search("bought") == []


def test_nothing_and_odd_texts(shop):
    assert shop.catalog.search("  ") == []
    assert shop.catalog.search("%") == []
    assert shop.catalog.search("'; DROP TABLE orders; --") == []
    assert shop.catalog.table("orders")
    assert len(shop.catalog.search("o", limit=2)) == 2
    with pytest.raises(LakehouseError, match="is text"):
        shop.catalog.search(3)


def test_many_tables(lake):
    with lake.transaction():
        for number in range(300):
            lake.sql(f"CREATE TABLE t{number} (a{number} INTEGER, common INTEGER)")
    assert names(lake.catalog.search("a299")) == ["t299"]
    assert len(lake.catalog.search("common")) == 300
    assert names(lake.catalog.search("t17"))[0] == "t17"
