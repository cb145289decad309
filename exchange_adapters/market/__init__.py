"""Market data as feeds: recorded panels and a calibrated generator behind one port."""
