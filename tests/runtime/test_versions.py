import importlib.metadata

from lungseg_jax.runtime.versions import version_of


def test_an_installed_package_has_its_version():
    assert version_of("lungseg-jax") == importlib.metadata.version("lungseg_jax")


def test_a_package_without_metadata_is_no_error():
    """A checkout on PYTHONPATH trains, and its runs say that the version is unknown."""
    assert version_of("not-installed-anywhere") == "unknown"
