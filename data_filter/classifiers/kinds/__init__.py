"""The kinds of classifiers, one file each, and the table of them."""
