from lungseg_jax.config import default


def get_config():
    c = default()
    c.name = "incp_snapshot"
    return c
