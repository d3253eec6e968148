"""A simulated fleet: real engines and a real collector; time, chance, network and disks are
virtual.
"""
