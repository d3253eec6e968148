"""A simulated fleet: real engines and a real collector.

Time, random numbers, network, clocks and disks are simulated and follow from one seed.
"""
