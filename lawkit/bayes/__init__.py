"""Bayes: the posterior of a law's parameters, by Laplace's approximation or by NUTS in PyMC."""
