"""Tile boxes of the built-in grids against the numbers that collections are published on."""

import pytest

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.tasks import BUILT_IN, NamedGrid, parse_grid


@pytest.mark.parametrize(
    ("name", "crs", "tile", "bounds", "shape"),
    [
        ("au-30", "EPSG:3577", (41, 13), (1_248_000, -4_224_000, 1_344_000, -4_128_000), 3200),
        (
            "au_extended_10",
            "EPSG:3577",
            (0, 0),
            (-4_416_000, -6_912_000, -4_320_000, -6_816_000),
            9600,
        ),
        (
            "au-extended-s2-40",
            "EPSG:3577",
            (1, 2),
            (-4_384_000, -6_848_000, -4_352_000, -6_816_000),
            800,
        ),
        (
            "africa_20",
            "EPSG:6933",
            (0, 0),
            (-17_376_000, -7_392_000, -17_280_000, -7_296_000),
            4800,
        ),
        ("global-60", "EPSG:6933", (181, 77), (0, 0, 96_000, 96_000), 1600),
        (
            "albers_au_25",
            "EPSG:3577",
            (-3, -40),
            (-300_000, -4_000_000, -200_000, -3_900_000),
            4000,
        ),
        ("au", "EPSG:3577", (0, 0), (-2_688_000, -5_472_000, -2_592_000, -5_376_000), 1),
        ("epsg:3857;30;5000", "EPSG:3857", (-1, 0), (-150_000, 0, 0, 150_000), 5000),
    ],
)
def test_tiles_lie_where_collections_have_them(name, crs, tile, bounds, shape):
    geobox = parse_grid(name).geobox(tile)
    assert tuple(geobox.boundingbox) == bounds
    assert str(geobox.crs) == crs
    assert tuple(geobox.shape) == (shape, shape)
    assert geobox.affine.e < 0 < geobox.affine.a  # north up


def test_every_built_in_name_works_in_both_spellings():
    for name in BUILT_IN:
        for typed in (name, name.replace("_", "-")):
            grid = parse_grid(typed)
            assert grid.name == typed  # the stored name is what was typed
            again = NamedGrid.from_doc(typed, grid.to_doc())
            assert again.geobox((3, -2)) == grid.geobox((3, -2))
    assert parse_grid("au_30").to_doc() == {
        "crs": "EPSG:3577",
        "tile_size": [96_000.0, 96_000.0],
        "resolution": [-30.0, 30.0],
        "origin": [-5_472_000.0, -2_688_000.0],
    }


def test_custom_grids_keep_their_text_with_underscores():
    grid = parse_grid("epsg:6933;-10x20;9600x4800")
    assert grid.name == "epsg:6933_-10x20_9600x4800"
    assert grid.spec.tile_size.xy == (96_000, 96_000)
    assert tuple(grid.geobox((0, 0)).shape) == (9600, 4800)
    degrees = parse_grid("EPSG:4326;0.00025;3200")
    assert degrees.name == "EPSG:4326_0.00025_3200"
    assert degrees.geobox((10, -3)).boundingbox.left == pytest.approx(8.0)


@pytest.mark.parametrize(
    "text",
    [
        "au-31",
        "",
        "epsg:3577",
        "epsg:999999;30;100",
        "nonsense;30;100",
        "epsg:3577;0;100",
        "epsg:3577;nan;100",
        "epsg:3577;30;0",
        "epsg:3577;30;10x10x10",
        "epsg:3577;a;10",
        "a;b",
    ],
)
def test_a_bad_grid_lists_what_is_possible(text):
    with pytest.raises(ConfigError) as caught:
        parse_grid(text)
    line = str(caught.value)
    assert "au_30" in line
    assert "epsg:3857;30;5000" in line
    assert "\n" not in line


@pytest.mark.parametrize("text", ["60", "-60,60", "60x60", "60,-60", 60])
def test_another_resolution_keeps_the_tile(text):
    grid = parse_grid("au-30")
    geobox = grid.geobox((41, 13), text)
    assert geobox.boundingbox == grid.geobox((41, 13)).boundingbox
    assert geobox.resolution.yx == (-60, 60)
    assert tuple(geobox.shape) == (1600, 1600)


@pytest.mark.parametrize("text", ["31", "7,30", "0", "abc", "1,2,3", "1e9", "-30,x"])
def test_an_impossible_resolution_names_value_and_tile(text):
    with pytest.raises(ConfigError, match="resolution") as caught:
        parse_grid("au-30").with_resolution(text)
    assert text in str(caught.value)
    if text == "31":
        assert "96000" in str(caught.value)
