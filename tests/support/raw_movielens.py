"""Tiny data sets in the two forms of MovieLens, built by hand from plain rows."""

from types import MappingProxyType

from tests.support.raw_files import make_config, zip_bytes

SCENARIOS = ("age_under_25", "age_25_34", "age_35_up")
DAY = 86_400


def flags(*at):
    """The 19 genre cells of u.item, `unknown` first."""
    return ["1" if i in at else "0" for i in range(19)]


class Form100k:
    zip, ratings, users, items = "ml-100k", "u.data", "u.user", "u.item"
    separators = MappingProxyType({"u.data": "\t", "u.user": "|", "u.item": "|"})

    @staticmethod
    def user(user, age, gender="M", occupation="writer", code="85711"):
        return [user, age, gender, occupation, code]

    @staticmethod
    def item(item, year=1995, at=(1,)):
        return [item, f"Film {item} é ({year})", f"01-Jan-{year}", "", "http://us.imdb.com/x", *flags(*at)]


class Form1m:
    zip, ratings, users, items = "ml-1m", "ratings.dat", "users.dat", "movies.dat"
    separators = MappingProxyType(dict.fromkeys(("ratings.dat", "users.dat", "movies.dat"), "::"))

    @staticmethod
    def user(user, age, gender="M", occupation="20", code="85711-1234"):
        return [user, gender, age, occupation, code]

    @staticmethod
    def item(item, year=1995, at=()):
        return [item, f"Film: {item}, é ({year})", "|".join(["Action", *at])]


def text(form, contents):
    """File name -> bytes; a file may also be given as bytes."""
    return {
        file: table if isinstance(table, bytes)
        else "".join(form.separators[file].join(map(str, row)) + "\n" for row in table).encode("latin-1")
        for file, table in contents.items()
    }  # fmt: skip


def packed(form, contents):
    return zip_bytes({f"{form.zip}/{file}": data for file, data in text(form, contents).items()})


def write_zip(folder, form, contents):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{form.zip}.zip").write_bytes(packed(form, contents))
    return folder


def logs(form=Form100k, users=30, items=10):
    """A complete data set: ages 45, 18 and 25 in turn, every user rates every item, in an order of their own."""
    people = [form.user(u, (18, 25, 45)[u % 3]) for u in range(1, users + 1)]
    pairs = [(u, i) for u in range(1, users + 1) for i in range(1, items + 1)]
    rated = [[u, i, 1 + (u * 7 + i * 3) % 5, (100 + u * i % 11) * DAY] for u, i in pairs]
    return {form.ratings: rated, form.users: people, form.items: [form.item(i) for i in range(1, items + 1)]}


def config_for(form, path, **changes):
    block = {"variant": {"ml-100k": "100k", "ml-1m": "1m"}[form.zip], "path": str(path) if path else None}
    return make_config("movielens", movielens={**block, **changes}, private_fields=("user_id",))
