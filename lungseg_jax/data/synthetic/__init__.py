"""The parts of the phantom; lungseg_jax.data.phantom puts them together."""
