"""Folders and files of any format to clean documents without copies: read, told apart, split, reckoned with."""
