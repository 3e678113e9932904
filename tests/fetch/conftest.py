"""What the tests of the fetchers share."""
