"""How wide a 95 % interval of a normal variable is."""

from statistics import NormalDist

Z = NormalDist().inv_cdf(0.975)  # standard errors to either side
