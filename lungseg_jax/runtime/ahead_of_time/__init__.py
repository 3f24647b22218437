"""What compilers report of programs for devices that need not be there."""
