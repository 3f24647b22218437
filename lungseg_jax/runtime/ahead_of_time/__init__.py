"""What compilers say of programs for devices that need not be there."""
