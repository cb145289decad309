"""Contract test kit: what every ``VenuePort`` has to do, written once and run against each."""
