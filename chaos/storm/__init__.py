"""The storm: real processes on one real page, killed and stopped at random while they trade.

Strategy clients, a desk (router, venue and position keeper in one) and a breaker act on a page
through the product's own functions. A driver kills and stops them at seeded random moments, starts
successors and observes; what it saw is a verdict of plain numbers.
"""
