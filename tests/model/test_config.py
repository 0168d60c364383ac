"""Configurations: the published ones load, wrong ones are named with a remedy."""

import pytest
import yaml

from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.model import parse_config

OLD_README = """
plugin: gm-ls
plugin_config: {resampling: bilinear, bands: ["blue", "red", "green", "nir", "swir1", "swir2"],
  rgb_bands: ["red", "green", "blue"], mask_band: fmask, cloud_classes: ["shadow", "cloud"],
  filters: [0, 0], aux_names: {smad: sdev, emad: edev, bcmad: bcdev, count: count}}
product: {name: ga_ls8c_nbart_gm_cyear_3, short_name: ga_ls8c_nbart_gm_cyear_3, version: 3.0.0,
  product_family: geomedian}
max_processing_time: 3600
job_queue_max_lease: 300
renew_safety_margin: 60
future_poll_interval: 2
s3_acl: public-read
cog_opts: {zlevel: 9, overrides: {rgba: {compress: JPEG, jpeg_quality: 90}}}
"""


def test_the_old_readmes_configuration_loads():
    config = parse_config(yaml.safe_load(OLD_README))
    assert config.product.version == "3.0.0"
    assert config.cog["zlevel"] == 9
    assert config.cog["overview_resampling"] == "average"
    assert config.future_poll_interval == 2


def test_keys_that_the_incumbent_ignores_are_known():
    config = parse_config(
        {"transform_code": "EPSG:9688", "area_of_interest": [-180, -90, 180, 90],
         "temporal-range": "2020--P1Y", "frequency": "rolling-3months"}
    )  # fmt: skip
    assert config.temporal_range == "2020--P1Y"
    assert config.transform_code == "EPSG:9688"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"max_procesing_time": 1}, "unknown key 'max_procesing_time'.*'max_processing_time'"),
        ({"product": {"name": "a", "short_nam": "b"}}, "product.short_nam'.*'short_name'"),
        ({"threads": "many"}, "threads = 'many'"),
        ({"max_processing_time": -1}, "max_processing_time = -1"),
        ({"xyzzy": 1}, "remove it"),
    ],
)
def test_a_wrong_key_or_value_is_named(raw, says):
    with pytest.raises(ConfigError, match=says):
        parse_config(raw)


def test_a_number_in_yaml_may_be_a_version():
    assert parse_config({"product": {"name": "a", "version": 3.0}}).product.version == "3.0"


def test_secrets_never_reach_the_log():
    config = parse_config({"plugin_config": {"aws_secret_access_key": "x", "bands": ["red"]}})
    assert config.redacted() == {
        "plugin_config": {"aws_secret_access_key": "***", "bands": ["red"]}
    }


def test_the_hash_changes_with_what_decides_the_pixels_only():
    base = parse_config({"plugin": "gm-ls"})
    assert base.hash == parse_config({"plugin": "gm-ls", "threads": 3}).hash
    assert base.hash != parse_config({"plugin": "gm-ls", "plugin_config": {"filters": [1, 2]}}).hash
