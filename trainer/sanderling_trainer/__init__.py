"""The lab and the fleet: learns policies, judges them, and closes the circle with the devices."""
