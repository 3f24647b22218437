"""The commands: flags in, one call into the library, exit status out."""
