"""The steps of the method, one file each. They meet on disk and never import each other."""
