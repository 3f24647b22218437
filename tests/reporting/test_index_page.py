"""The page that lists the volumes of a folder."""

import pytest

from lungseg_jax.reporting.index_page import is_own_page, write_index_page

ROW = {
    "volume_ml": "4321.6",
    "right_ml": "2300",
    "left_ml": "2021.6",
    "mean_hu": "-812.3",
}


def test_lists_volumes_with_links_and_those_that_were_skipped(tmp_path):
    (tmp_path / "out").mkdir()
    pages = {
        f"scans/{name}": tmp_path / "out" / f"{name}_overlay.html"
        for name in ("a <b>/ct", "d", "M\udcfcller")
    }
    pages["scans/c"] = tmp_path / "out" / "c_overlay.html"
    skipped = {"scans/c": "c is <torn>."}
    rows = [ROW | {"input": "scans/a <b>/ct", "slices": 90, "to_review": 7}]
    write_index_page(tmp_path / "out" / "index.html", pages, rows, skipped)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "4 volumes, 1 skipped" in page and "Lungs of scans" in page
    assert '<a href="a%20%3Cb%3E/ct_overlay.html">a &lt;b&gt;/ct</a>' in page
    for cell in ("4322", "2300", "2022", "-812", "90"):
        assert f"<td>{cell}</td>" in page
    assert '<td class="many">7</td>' in page
    assert '<a href="d_overlay.html">d</a>' in page  # kept, without a row
    assert "skipped: c is &lt;torn&gt;." in page and "c_overlay" not in page
    assert "M\\udcfcller" in page  # a Latin-1 name
    assert "For research only" in page
    assert is_own_page(tmp_path / "out" / "index.html")
    (tmp_path / "index.html").write_text("<html><title>My site</title></html>")
    assert not is_own_page(tmp_path / "index.html")


@pytest.mark.parametrize("folder", ["", "./", "../scans/"])
def test_volumes_of_the_working_directory_have_its_name(folder, tmp_path, monkeypatch):
    (tmp_path / "scans").mkdir()
    monkeypatch.chdir(tmp_path / "scans")
    pages = {f"{folder}{name}": tmp_path / f"{name}.html" for name in ("a", "b")}
    write_index_page(tmp_path / "index.html", pages, [], {})
    page = (tmp_path / "index.html").read_text()
    assert "<h1>Lungs of scans</h1>" in page and '<a href="a.html">a</a>' in page
