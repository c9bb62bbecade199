"""Metrics, bounds and Pareto fronts: what a job asks for and how fronts are compared."""
