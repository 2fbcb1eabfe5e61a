"""What the commands beside this package do; each is loaded inside the boundary of ``cli.command``."""
