"""The numbers of the documents, read from result files; templates hold the words."""
