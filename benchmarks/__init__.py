"""How fast the programs are, beside named peers doing the same work in the same run."""
