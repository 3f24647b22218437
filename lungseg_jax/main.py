"""Train a U-Net: the same command as `lungseg train`.

python -m lungseg_jax.main --config=configs/incp_snapshot.py
"""

from lungseg_jax.runtime import huge_pages, signals

if __name__ == "__main__":  # before the imports
    huge_pages.restart_with_huge_pages()
    signals.install_handlers()

from lungseg_jax.cli import train

if __name__ == "__main__":
    train.main()
