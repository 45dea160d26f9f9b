"""The panels of a page: what a person wants. What is done is the service's."""
