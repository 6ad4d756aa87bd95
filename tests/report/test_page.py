"""A page holds all that it shows, and names in it cannot become markup."""

import re
import zipfile

import pytest

from pfmsmt.core.display import Cell, DisplayTable, Heading, Row
from pfmsmt.report.drawing import Picture
from pfmsmt.report.page import Page, html_page, markdown_page, write_page, write_plots_page
from pfmsmt.tracking.logged_models import build_wheel

HOSTILE = '<script>alert("1")</script><img src="http://example.org/x.png">&\'|'


def page_of(name, **changes):
    table = DisplayTable(
        headings=(Heading(name, align="left"), Heading(name, name, ".2f")),
        rows=(Row((Cell(name), Cell(0.5, 0.125, name, best=True))), Row((Cell("plain"), Cell(name)), reference=True)),
        title=name,
        explanation=name,
        notes=(name,),
    )
    values = {
        "title": name,
        "headline": name,
        "points": (name,),
        "remarks": (name,),
        "tables": (table, table),
        "pictures": (Picture("one", name, b"\x89PNG"),),
        "picture_folder": "pictures",
        "subject": name,
        "facts": ((name, name),),
        "colours": {name: "#0072B2"},
    }
    return Page(**values | changes)


def test_the_three_forms_agree():
    page = page_of("local")
    html, markdown = html_page(page), markdown_page(page)
    assert "| local | **0.50** ± 0.12 local |" in markdown
    assert "<td><b>0.50</b><small>± 0.12</small><small>local</small></td>" in html
    assert '<tr><th class="left"><i class="key" style="background:#0072B2"></i>local</th>' in html
    assert '<tr class="reference"><th class="left">plain</th><td>local</td></tr>' in html
    assert html.index("<h2>") < html.index("<figure>") < html.rindex("<h2>")
    assert markdown.index("## ") < markdown.index("![local](pictures/one.png)") < markdown.rindex("## ")
    assert html.count("<li>– local</li>") == markdown.count("- – local\n") == 2
    assert html.startswith("<!DOCTYPE html>\n")


def test_a_pictures_title_is_not_printed_again():
    page = page_of("local", pictures=(Picture("one", "Drawn within", b"\x89PNG"),))
    assert html_page(page).count("Drawn within") == 1
    assert markdown_page(page).count("Drawn within") == 1
    assert '<img alt="Drawn within"' in html_page(page)


def test_several_tables_may_stand_in_front():
    html = html_page(page_of("local", in_front=2))
    assert html.rindex("<h2>") < html.index("<figure>")
    markdown = markdown_page(page_of("local", in_front=2))
    assert markdown.rindex("## ") < markdown.index("![local]")


def test_hostile_names_are_text():
    html = html_page(page_of(HOSTILE))
    plain = html_page(page_of("local"))
    tags = re.compile(r"<[^>]*>")
    # The texts of an image's alt and of the names' cells are escaped, so both pages have the same tags.
    assert [re.sub(r'"[^"]*"', '""', tag) for tag in tags.findall(html)] == [
        re.sub(r'"[^"]*"', '""', tag) for tag in tags.findall(plain)
    ]
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in html
    assert "<script" not in html
    markdown = markdown_page(page_of(HOSTILE, facts=()))
    assert "<" not in markdown
    assert len(markdown.splitlines()) == len(markdown_page(page_of("local", facts=())).splitlines())


def test_a_page_needs_no_other_file():
    html = html_page(page_of("local"))
    assert not re.search(r"(src|href)=\"(?!data:)|https?:|url\(|@import|<script|<link", html)
    assert 'src="data:image/png;base64,iVBORw=="' in html
    assert "border-collapse" in html


def test_files_are_written_all_or_none(tmp_path):
    paths = write_page(page_of("local"), tmp_path / "new", "data", {"more.json": "{}\n"})
    assert [path.relative_to(tmp_path / "new").as_posix() for path in paths] == [
        "data.md", "data.html", "more.json", "pictures/one.png",
    ]  # fmt: skip
    assert all(path.is_file() for path in paths)
    no_bytes = Picture("one", "", None)
    with pytest.raises(TypeError):
        write_page(page_of("local", pictures=(no_bytes,)), tmp_path / "bad", "data")
    assert not (tmp_path / "bad").exists()


def test_the_wheel_holds_the_templates(tmp_path):
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        found = {name for name in wheel.namelist() if name.startswith("pfmsmt/report/templates/")}
        style = wheel.read("pfmsmt/report/templates/style.css").decode()
    assert found == {"pfmsmt/report/templates/page.html", "pfmsmt/report/templates/style.css"}
    assert "http" not in style


def test_dvcs_page_of_plots_needs_no_network(tmp_path):
    write_plots_page(tmp_path / "plots.html")
    text = (tmp_path / "plots.html").read_text()
    # DVC puts its plots, and scripts of its own, in place of these.
    assert [text.count(word) for word in ("{plot_divs}", "{refresh_tag}", "{scripts}")] == [1, 1, 0]
    assert re.findall(r"<(?:script|link)[^>]*(?:src|href)=", text) == []
    assert "window.vegaEmbed" in text
