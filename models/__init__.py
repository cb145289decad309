"""Pure risk models: numbers in, numbers out; no I/O, no clock, no state outside their arguments."""
